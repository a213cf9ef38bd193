// JSON as people write it in configuration files, read strictly.
#include "deepspeed/base/json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "deepspeed/base/atomic_file.h"
#include "deepspeed/base/error.h"

namespace deepspeed::base {
namespace {

// "SOURCE:LINE:COLUMN" of a byte offset.
std::string place(
    const std::string& source,
    std::string_view text,
    size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column =
      before.size() - (newline == std::string_view::npos ? 0 : newline + 1);
  return source + ":" + std::to_string(line) + ":" +
      std::to_string(std::max<size_t>(column, 1));
}

// First pass: refuses duplicate keys and deep nesting, before a tree is built
// (nlohmann frees a tree recursively).
class Checker : public nlohmann::json_sax<Json> {
 public:
  explicit Checker(int max_depth) : max_depth_(max_depth) {}

  std::string problem;
  size_t offset = 0; // of a syntax error

  bool null() override {
    return true;
  }
  bool boolean(bool) override {
    return true;
  }
  bool number_integer(number_integer_t) override {
    return true;
  }
  bool number_unsigned(number_unsigned_t) override {
    return true;
  }
  bool number_float(number_float_t, const string_t&) override {
    return true;
  }
  bool string(string_t&) override {
    return true;
  }
  bool binary(binary_t&) override {
    return true;
  }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return check_depth();
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      problem = "duplicate key \"" + name + "\"";
      return false;
    }
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    keys_.emplace_back();
    return check_depth();
  }
  bool end_array() override {
    keys_.pop_back();
    return true;
  }
  bool parse_error(
      std::size_t position,
      const std::string&,
      const nlohmann::detail::exception& error) override {
    offset = position;
    problem = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const size_t colon = problem.find(": ");
    if (colon != std::string::npos) {
      problem = problem.substr(colon + 2);
    }
    return false;
  }

 private:
  bool check_depth() {
    if (static_cast<int>(keys_.size()) > max_depth_) {
      problem = "nested deeper than " + std::to_string(max_depth_) + " levels";
      return false;
    }
    return true;
  }

  int max_depth_;
  std::vector<std::set<std::string>> keys_;
};

} // namespace

Json parse_json(
    std::string_view text,
    const std::string& source,
    const JsonOptions& options) {
  Checker checker(options.max_depth);
  const bool good = Json::sax_parse(
      text,
      &checker,
      nlohmann::detail::input_format_t::json,
      /*strict=*/true,
      options.comments);
  if (!good) {
    throw Error(
        ExitCode::data,
        "not valid JSON: " + checker.problem,
        checker.offset > 0 ? place(source, text, checker.offset) : source,
        "");
  }
  return Json::parse(text, nullptr, true, options.comments);
}

Json read_json(
    const std::string& path,
    uint64_t max_bytes,
    const JsonOptions& options) {
  return parse_json(read_file(path, max_bytes), path, options);
}

} // namespace deepspeed::base
