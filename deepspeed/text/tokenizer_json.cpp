// A strict JSON reader for files with a vocabulary of many thousand entries.
#include "deepspeed/text/tokenizer_json.h"

#include <algorithm>
#include <limits>

#include "deepspeed/base/error.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {

JsonReader::JsonReader(std::string_view document, std::string source)
    : document_(document), source_(std::move(source)) {
  if (!is_valid_utf8(document_)) {
    fail("not valid UTF-8");
  }
}

void JsonReader::fail(const std::string& what) const {
  const std::string_view before = document_.substr(0, at_);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  throw base::Error(
      base::ExitCode::data,
      what,
      source_ + ":" + std::to_string(line) + " (byte " + std::to_string(at_) +
          ")",
      "the file is damaged or of another kind: fetch it again");
}

void JsonReader::skip_space() {
  while (at_ < document_.size() &&
         (document_[at_] == ' ' || document_[at_] == '\n' ||
          document_[at_] == '\r' || document_[at_] == '\t')) {
    ++at_;
  }
}

bool JsonReader::accept(char c) {
  skip_space();
  if (at_ < document_.size() && document_[at_] == c) {
    ++at_;
    return true;
  }
  return false;
}

void JsonReader::expect(char c) {
  if (!accept(c)) {
    fail(
        std::string("not valid JSON: expected '") + c + "'" +
        (at_ == document_.size() ? " but the file ends" : ""));
  }
}

std::string_view JsonReader::string() {
  expect('"');
  const size_t begin = at_;
  bool has_escape = false;
  for (; at_ < document_.size(); ++at_) {
    const char c = document_[at_];
    if (c == '"') {
      const std::string_view raw = document_.substr(begin, at_ - begin);
      ++at_;
      return has_escape ? unescaped_.emplace_back(unescaped(raw)) : raw;
    }
    if (static_cast<unsigned char>(c) < 0x20) {
      fail("not valid JSON: a control character in a string");
    }
    if (c == '\\') {
      has_escape = true;
      ++at_; // the escaped character, which may be a quote
    }
  }
  at_ = document_.size();
  fail("not valid JSON: a string without an end");
}

uint32_t JsonReader::hex4(std::string_view raw, size_t at) const {
  uint32_t value = 0;
  for (size_t i = at; i < at + 4; ++i) {
    const char c = i < raw.size() ? raw[i] : ' ';
    const int digit = c >= '0' && c <= '9' ? c - '0'
        : c >= 'a' && c <= 'f'             ? c - 'a' + 10
        : c >= 'A' && c <= 'F'             ? c - 'A' + 10
                                           : -1;
    if (digit < 0) {
      fail("not valid JSON: \\u without four hexadecimal digits");
    }
    value = value << 4 | static_cast<uint32_t>(digit);
  }
  return value;
}

std::string JsonReader::unescaped(std::string_view raw) const {
  constexpr std::string_view kNames = "\"\\/bfnrt";
  constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
  std::string text;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      text += raw[i];
      continue;
    }
    ++i;
    const size_t name = kNames.find(raw[i]);
    if (name != std::string_view::npos) {
      text += kValues[name];
      continue;
    }
    if (raw[i] != 'u') {
      fail("not valid JSON: an unknown escape in a string");
    }
    char32_t point = hex4(raw, i + 1);
    i += 4;
    if (point >= 0xD800 && point <= 0xDBFF && raw.substr(i + 1, 2) == "\\u") {
      const uint32_t low = hex4(raw, i + 3);
      if (low >= 0xDC00 && low <= 0xDFFF) {
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        i += 6;
      }
    }
    if (point >= 0xD800 && point <= 0xDFFF) {
      fail("not valid JSON: half of a surrogate pair in a string");
    }
    append_utf8(point, text);
  }
  return text;
}

int32_t JsonReader::integer() {
  skip_space();
  const size_t begin = at_;
  int64_t value = 0;
  while (at_ < document_.size() && document_[at_] >= '0' &&
         document_[at_] <= '9') {
    value = value * 10 + (document_[at_] - '0');
    ++at_;
    if (value > std::numeric_limits<int32_t>::max()) {
      fail("the number is too large");
    }
  }
  const bool has_leading_zero = at_ > begin + 1 && document_[begin] == '0';
  const bool is_fraction = at_ < document_.size() &&
      (document_[at_] == '.' || document_[at_] == 'e' || document_[at_] == 'E');
  if (at_ == begin || has_leading_zero || is_fraction) {
    fail("expected an integer that is not negative");
  }
  return static_cast<int32_t>(value);
}

std::string_view JsonReader::skip() {
  skip_space();
  const size_t begin = at_;
  int depth = 0;
  do {
    skip_space();
    if (at_ >= document_.size()) {
      fail("not valid JSON: the file ends within a value");
    }
    const char c = document_[at_];
    if (c == '"') {
      string();
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at_;
    } else if (c == '}' || c == ']') {
      --depth;
      ++at_;
    } else if (depth > 0 && (c == ',' || c == ':')) {
      ++at_;
    } else {
      const size_t end = document_.find_first_of(" \t\r\n,:[]{}\"", at_);
      if (end == at_) {
        fail("not valid JSON: expected a value");
      }
      at_ = std::min(end, document_.size());
    }
  } while (depth > 0);
  if (depth < 0) {
    fail("not valid JSON: expected a value");
  }
  return document_.substr(begin, at_ - begin);
}

void JsonReader::finish() {
  skip_space();
  if (at_ != document_.size()) {
    fail("not valid JSON: more text after the end of the document");
  }
}

} // namespace deepspeed::text
