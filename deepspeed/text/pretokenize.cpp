// Splitting text into the words that byte-level BPE encodes one by one.
#include "deepspeed/text/pretokenize.h"

#include <array>

#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

// The class of an ASCII byte; kNotAscii for the bytes of longer characters.
constexpr uint8_t kNotAscii = 4;

constexpr std::array<uint8_t, 256> make_byte_classes() {
  std::array<uint8_t, 256> classes{};
  for (int b = 0; b < 256; ++b) {
    CharClass value = CharClass::other;
    if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z')) {
      value = CharClass::letter;
    } else if (b >= '0' && b <= '9') {
      value = CharClass::number;
    } else if (b == ' ' || (b >= '\t' && b <= '\r')) {
      value = CharClass::space;
    }
    classes[b] = b < 0x80 ? static_cast<uint8_t>(value) : kNotAscii;
  }
  return classes;
}

constexpr std::array<uint8_t, 256> kByteClasses = make_byte_classes();

struct Char {
  CharClass value;
  uint32_t size;
};

Char char_at(const char* p) {
  const uint8_t value = kByteClasses[static_cast<unsigned char>(*p)];
  if (value != kNotAscii) {
    return {static_cast<CharClass>(value), 1};
  }
  const Decoded decoded = decode_utf8(p);
  return {class_of(decoded.point), decoded.size};
}

// The end of the run of characters of one class that starts at `p`.
const char* end_of_run(const char* p, const char* end, CharClass value) {
  while (p != end) {
    const uint8_t byte_class = kByteClasses[static_cast<unsigned char>(*p)];
    if (byte_class == static_cast<uint8_t>(value)) {
      ++p;
      continue;
    }
    if (byte_class != kNotAscii) {
      break;
    }
    const Decoded decoded = decode_utf8(p);
    if (class_of(decoded.point) != value) {
      break;
    }
    p += decoded.size;
  }
  return p;
}

// The length of 's 't 'm 'd 're 've 'll at the start of `text`, or 0.
size_t contraction(std::string_view text) {
  if (text.size() < 2) {
    return 0;
  }
  const char first = text[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    return 2;
  }
  if (text.size() < 3) {
    return 0;
  }
  const char second = text[2];
  const bool found = ((first == 'r' || first == 'v') && second == 'e') ||
      (first == 'l' && second == 'l');
  return found ? 3 : 0;
}

// A run of white space leaves its last character to the word that follows
// (`\s+(?!\S)`), unless it is the only one.
const char* end_of_space(const char* begin, const char* end) {
  const char* p = begin;
  const char* last = begin; // the last character before p
  while (p != end) {
    const Char next = char_at(p);
    if (next.value != CharClass::space) {
      return last == begin ? p : last;
    }
    last = p;
    p += next.size;
  }
  return p;
}

} // namespace

size_t first_pretoken(std::string_view text) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (*begin == '\'') {
    const size_t size = contraction(text);
    if (size > 0) {
      return size;
    }
  }
  const char* word = begin + (*begin == ' ' ? 1 : 0);
  if (word == end) {
    return 1;
  }
  const Char first = char_at(word);
  const char* stop = first.value == CharClass::space
      ? end_of_space(begin, end)
      : end_of_run(word + first.size, end, first.value);
  return static_cast<size_t>(stop - begin);
}

} // namespace deepspeed::text
