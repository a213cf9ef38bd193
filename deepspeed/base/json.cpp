// JSON as people write it in configuration files, read strictly.
#include "deepspeed/base/json.h"

#include <algorithm>
#include <set>
#include <vector>

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
    // "[json.exception.out_of_range.406] number overflow parsing '1e400'"
    for (const std::string_view end : {": ", "] "}) {
      const size_t found = problem.find(end);
      if (found != std::string::npos) {
        problem = problem.substr(found + end.size());
        break;
      }
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

// The offset behind the string or the comment that starts at `start`, or
// `start` if neither does.
size_t skip_string_or_comment(
    std::string_view text,
    size_t start,
    bool comments) {
  if (text[start] == '"') {
    size_t i = start + 1;
    while (i < text.size() && text[i] != '"') {
      i += text[i] == '\\' ? 2 : 1;
    }
    return std::min(i + 1, text.size());
  }
  const std::string_view mark = text.substr(start, 2);
  if (comments && (mark == "//" || mark == "/*")) {
    const std::string_view end = mark == "//" ? "\n" : "*/";
    const size_t found = text.find(end, start + 2);
    return found == std::string_view::npos ? text.size() : found + end.size();
  }
  return start;
}

// Makes a space of each comma between a value and a closing bracket: offsets
// stay what they are.
std::string without_trailing_commas(std::string_view text, bool comments) {
  constexpr size_t kNone = std::string_view::npos;
  std::string result(text);
  size_t comma = kNone; // behind a value, and nothing after it so far
  char last = '['; // the last character that means something
  for (size_t i = 0; i < text.size();) {
    const size_t behind = skip_string_or_comment(text, i, comments);
    const char c = text[i];
    const bool is_string = c == '"';
    if (behind > i && !is_string) {
      i = behind;
      continue;
    }
    i = std::max(behind, i + 1);
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      continue;
    }
    if ((c == ']' || c == '}') && comma != kNone) {
      result[comma] = ' ';
    }
    const bool after_value = last != '[' && last != '{' && last != ',';
    comma = c == ',' && after_value ? i - 1 : kNone;
    last = c;
  }
  return result;
}

} // namespace

Json parse_json(
    std::string_view text,
    const std::string& source,
    const JsonOptions& options) {
  if (options.trailing_commas) {
    JsonOptions strict = options;
    strict.trailing_commas = false;
    return parse_json(
        without_trailing_commas(text, options.comments), source, strict);
  }
  // nlohmann takes a NUL for the end of the text and ignores what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(
        ExitCode::data,
        "not valid JSON: a NUL byte",
        place(source, text, nul + 1),
        "");
  }
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

} // namespace deepspeed::base
