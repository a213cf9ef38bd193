// One string out of a line of JSON, without building a tree.
#include "deepspeed/text/json_line.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <utility>

namespace deepspeed::text {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;

// Receives the values of a line one by one. A tree would cost many times the
// size of a hostile line, and quadratic time for one of many keys.
class Field : public nlohmann::json_sax<Json> {
 public:
  Field(const std::string& column, std::string& text)
      : column_(column), text_(text) {}

  // "" if the field was there.
  std::string problem() const {
    if (problem_.empty() && !found_) {
      return "no field \"" + column_ + "\"";
    }
    return problem_;
  }

  bool null() override {
    return other_value("null");
  }
  bool boolean(bool) override {
    return other_value("a boolean");
  }
  bool number_integer(number_integer_t) override {
    return other_value("a number");
  }
  bool number_unsigned(number_unsigned_t) override {
    return other_value("a number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return other_value("a number");
  }
  bool string(string_t& value) override {
    if (depth_ == 0) {
      return other_value("a string");
    }
    if (at_column_) {
      text_ = std::move(value);
      at_column_ = false;
    }
    return true;
  }
  bool binary(binary_t&) override {
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ > 0 && !other_value("an object")) {
      return false;
    }
    return deeper();
  }
  bool key(string_t& name) override {
    if (depth_ == 1 && name == column_) {
      if (found_) {
        return fail("the field \"" + column_ + "\" is there twice");
      }
      found_ = true;
      at_column_ = true;
    }
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    return other_value("a list") && deeper();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(
      std::size_t,
      const std::string&,
      const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string_view what = error.what();
    const size_t colon = what.find(": ");
    return fail(
        "not valid JSON: " +
        std::string(
            colon == std::string_view::npos ? what : what.substr(colon + 2)));
  }

 private:
  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  bool other_value(const char* kind) {
    if (depth_ == 0) {
      return fail(std::string("expected an object, found ") + kind);
    }
    if (at_column_) {
      return fail(
          "the field \"" + column_ + "\" is " + kind + ", not a string");
    }
    return true;
  }
  bool deeper() {
    if (++depth_ > kMaxDepth) {
      return fail(
          "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    return true;
  }

  const std::string& column_;
  std::string& text_;
  std::string problem_;
  int depth_ = 0;
  bool found_ = false;
  bool at_column_ = false; // the next value is the text
};

} // namespace

std::string read_json_line(
    std::string_view line,
    const std::string& column,
    std::string& text) {
  if (line.find('\0') != std::string_view::npos) {
    return "not valid JSON: a NUL byte"; // the parser would stop there
  }
  Field field(column, text);
  Json::sax_parse(line, &field);
  return field.problem();
}

} // namespace deepspeed::text
