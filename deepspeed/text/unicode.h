// UTF-8 and the character classes that byte-level BPE splits words by.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace deepspeed::text {

// The classes of the regular expression of GPT-2, as the PyPI package
// tokenizers understands them (which is not the newest Unicode).
enum class CharClass : uint8_t { other, letter, number, space };

// The class of any value; `other` for what is no code point.
CharClass class_of(char32_t point);

// The code point at `p` and its length in bytes. REQUIRES: valid UTF-8.
struct Decoded {
  char32_t point;
  uint32_t size;
};
inline Decoded decode_utf8(const char* p) {
  const auto at = [p](int i) { return static_cast<unsigned char>(p[i]); };
  const auto tail = [&](int i) { return char32_t(at(i)) & 0x3F; };
  if (at(0) < 0x80) {
    return {at(0), 1};
  }
  if (at(0) < 0xE0) {
    return {(char32_t(at(0)) & 0x1F) << 6 | tail(1), 2};
  }
  if (at(0) < 0xF0) {
    return {(char32_t(at(0)) & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  }
  return {
      (char32_t(at(0)) & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3),
      4};
}

void append_utf8(char32_t point, std::string& text);

bool is_valid_utf8(std::string_view text);

// Each maximal subpart of an invalid sequence becomes one U+FFFD: the practice
// of the Unicode Standard (section 3.9, table 3-8), of Python's
// bytes.decode(errors="replace") and of Rust's String::from_utf8_lossy.
std::string replace_invalid_utf8(std::string_view text);

} // namespace deepspeed::text
