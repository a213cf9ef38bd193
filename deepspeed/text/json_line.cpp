// One string out of a line of JSON, without building a tree.
#include "deepspeed/text/json_line.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "deepspeed/text/unicode.h"

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

  // None if the field was there.
  JsonProblem problem() const {
    if (problem_ || found_) {
      return problem_;
    }
    return {
        "no field \"" + column_ + "\"",
        fields_.empty()
            ? "the object is empty"
            : "it has the fields " + fields_ + "; --text_column names one",
        /*is_syntax_error=*/false};
  }
  bool is_syntax_error() const {
    return problem_.is_syntax_error;
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
    if (depth_ != 1) {
      return true;
    }
    if (name != column_) {
      list(name);
      return true;
    }
    if (found_) {
      return fail(
          "the field \"" + column_ + "\" is there twice",
          "each object must have it once");
    }
    found_ = true;
    at_column_ = true;
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
    problem_.is_syntax_error = true;
    return fail(
        "not valid JSON: " +
            std::string(
                colon == std::string_view::npos ? what
                                                : what.substr(colon + 2)),
        "each line must be one whole object; \"jq -c . FILE > FILE.jsonl\" "
        "writes objects of several lines so");
  }

 private:
  bool fail(std::string what, std::string hint) {
    problem_.what = std::move(what);
    problem_.hint = std::move(hint);
    return false;
  }
  // For a hint: some of the names, of a sensible size.
  void list(const std::string& name) {
    constexpr size_t kMostBytes = 200;
    if (fields_.size() + name.size() < kMostBytes) {
      fields_ += (fields_.empty() ? "" : ", ") + name;
    }
  }
  bool other_value(const char* kind) {
    if (depth_ == 0) {
      return fail(
          std::string("expected an object, found ") + kind,
          "each line must be an object with a string \"" + column_ + "\"");
    }
    if (at_column_) {
      return fail(
          "the field \"" + column_ + "\" is " + kind + ", not a string",
          "--text_column names another field; leave objects without text out");
    }
    return true;
  }
  bool deeper() {
    if (++depth_ > kMaxDepth) {
      return fail(
          "nested deeper than " + std::to_string(kMaxDepth) + " levels", "");
    }
    return true;
  }

  const std::string& column_;
  std::string& text_;
  JsonProblem problem_;
  std::string fields_; // names of others
  int depth_ = 0;
  bool found_ = false;
  bool at_column_ = false; // the next value is the text
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// By the grammar of RFC 8259.
bool is_number(std::string_view text) {
  size_t i = text.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const size_t begin = i;
    while (i < text.size() && is_digit(text[i])) {
      ++i;
    }
    return i - begin;
  };
  const bool leading_zero = i < text.size() && text[i] == '0';
  const size_t whole = digits();
  if (whole == 0 || (leading_zero && whole > 1)) {
    return false;
  }
  if (i < text.size() && text[i] == '.' && (++i, digits() == 0)) {
    return false;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    i += i < text.size() && (text[i] == '+' || text[i] == '-') ? 1 : 0;
    if (digits() == 0) {
      return false;
    }
  }
  return i == text.size();
}

// The value of an escape like \ud83d at the start of `text`; 0 if it is none.
uint32_t unicode_escape(std::string_view text) {
  uint32_t value = 0;
  if (text.size() < 6 || !text.starts_with("\\u")) {
    return 0;
  }
  const char* end = text.data() + 6;
  return std::from_chars(text.data() + 2, end, value, 16).ptr == end ? value
                                                                     : 0;
}

// What Python's json module writes beyond the standard, as the standard has it.
class Standardizer {
 public:
  explicit Standardizer(std::string_view line)
      : repaired_(replace_invalid_utf8(line)),
        line_(repaired_),
        has_replaced_(repaired_ != line) {}

  std::string run() {
    for (size_t i = 0; i < line_.size();) {
      i += in_string_ ? copy_of_string(line_.substr(i))
                      : copy_value(line_.substr(i));
    }
    return std::move(out_);
  }
  // Whether a U+FFFD stands for what was no character.
  bool has_replaced() const {
    return has_replaced_;
  }

 private:
  static bool is_surrogate(uint32_t value, uint32_t first) {
    return value >= first && value < first + 0x400;
  }

  // Returns how much of `rest` was used; so does the next one.
  size_t copy_of_string(std::string_view rest) {
    const uint32_t value = unicode_escape(rest);
    size_t n = rest[0] == '\\' ? std::min<size_t>(2, rest.size()) : 1;
    if (is_surrogate(value, 0xD800) &&
        is_surrogate(unicode_escape(rest.substr(6)), 0xDC00)) {
      n = 12;
    } else if (is_surrogate(value, 0xD800) || is_surrogate(value, 0xDC00)) {
      out_ += "\\ufffd";
      has_replaced_ = true;
      return 6;
    }
    in_string_ = rest[0] != '"';
    out_ += rest.substr(0, n);
    return n;
  }
  size_t copy_value(std::string_view rest) {
    size_t n = 0;
    while (n < rest.size() &&
           (is_digit(rest[n]) || (rest[n] >= 'a' && rest[n] <= 'z') ||
            (rest[n] >= 'A' && rest[n] <= 'Z') || rest[n] == '-' ||
            rest[n] == '+' || rest[n] == '.')) {
      ++n;
    }
    const std::string_view word = rest.substr(0, n);
    if (word == "NaN" || word == "Infinity" || word == "-Infinity" ||
        is_number(word)) {
      out_ += '0';
      return n;
    }
    n = std::max<size_t>(n, 1);
    in_string_ = rest[0] == '"';
    out_ += rest.substr(0, n);
    return n;
  }

  std::string repaired_;
  std::string_view line_;
  bool has_replaced_;
  bool in_string_ = false;
  std::string out_;
};

} // namespace

JsonProblem read_json_line(
    std::string_view line,
    const std::string& column,
    std::string& text) {
  if (line.find('\0') != std::string_view::npos) {
    // The parser would stop there.
    return {"not valid JSON: a NUL byte", "is the file damaged?", true};
  }
  Field field(column, text);
  Json::sax_parse(line, &field);
  if (!field.is_syntax_error()) {
    return field.problem();
  }
  Standardizer standardizer(line);
  const std::string standard = standardizer.run();
  Field again(column, text);
  Json::sax_parse(standard, &again);
  const bool is_unsound = standardizer.has_replaced() &&
      text.find("\xEF\xBF\xBD") != std::string::npos;
  return again.is_syntax_error() || is_unsound ? field.problem()
                                               : again.problem();
}

bool is_json_object(std::string_view line) {
  std::string ignored;
  const size_t first = line.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && line[first] == '{' &&
      !read_json_line(line, /*column=*/"", ignored).is_syntax_error;
}

} // namespace deepspeed::text
