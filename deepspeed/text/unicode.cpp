// UTF-8 and the character classes that byte-level BPE splits words by.
#include "deepspeed/text/unicode.h"

#include <cstring>
#include <vector>

#include "deepspeed/text/unicode_tables.h"

namespace deepspeed::text {
namespace {

constexpr char32_t kCodePoints = 0x110000;

// Two bits for each code point: 272 KiB, filled once, at the first use.
class ClassTable {
 public:
  ClassTable() : bits_(kCodePoints / 4) {
    fill(kLetterRanges, kLetterRangesSize, CharClass::letter);
    fill(kNumberRanges, kNumberRangesSize, CharClass::number);
    fill(kSpaceRanges, kSpaceRangesSize, CharClass::space);
  }

  CharClass operator[](char32_t point) const {
    return static_cast<CharClass>(bits_[point / 4] >> (point % 4 * 2) & 3);
  }

 private:
  void fill(const CodePointRange* ranges, size_t n, CharClass value) {
    for (size_t i = 0; i < n; ++i) {
      for (uint32_t p = ranges[i].first; p <= ranges[i].last; ++p) {
        bits_[p / 4] |= static_cast<uint8_t>(value) << (p % 4 * 2);
      }
    }
  }

  std::vector<uint8_t> bits_;
};

// The bytes that a second byte may be, and how many follow the first one.
struct Lead {
  int following = 0; // 0: not a lead byte
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {1};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {
        2,
        static_cast<unsigned char>(byte == 0xE0 ? 0xA0 : 0x80),
        static_cast<unsigned char>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {
        3,
        static_cast<unsigned char>(byte == 0xF0 ? 0x90 : 0x80),
        static_cast<unsigned char>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {};
}

struct Sequence {
  size_t size; // of the character, or of the maximal subpart
  bool valid;
};

// REQUIRES: text is not empty and does not start with ASCII.
Sequence sequence_at(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  Lead lead = lead_of(at(0));
  if (lead.following == 0) {
    return {1, false};
  }
  size_t size = 1;
  for (; lead.following > 0; --lead.following, ++size) {
    if (size >= text.size() || at(size) < lead.low || at(size) > lead.high) {
      return {size, false};
    }
    lead.low = 0x80;
    lead.high = 0xBF;
  }
  return {size, true};
}

// The length of the longest valid prefix.
size_t valid_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word;
    if (i + sizeof(word) <= text.size()) {
      std::memcpy(&word, text.data() + i, sizeof(word));
      if ((word & 0x8080808080808080u) == 0) {
        i += sizeof(word);
        continue;
      }
    }
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const Sequence sequence = sequence_at(text.substr(i));
    if (!sequence.valid) {
      break;
    }
    i += sequence.size;
  }
  return i;
}

} // namespace

CharClass class_of(char32_t point) {
  static const ClassTable table;
  return point < kCodePoints ? table[point] : CharClass::other;
}

void append_utf8(char32_t point, std::string& text) {
  if (point < 0x80) {
    text += static_cast<char>(point);
    return;
  }
  if (point < 0x800) {
    text += static_cast<char>(0xC0 | point >> 6);
  } else {
    if (point < 0x10000) {
      text += static_cast<char>(0xE0 | point >> 12);
    } else {
      text += static_cast<char>(0xF0 | point >> 18);
      text += static_cast<char>(0x80 | (point >> 12 & 0x3F));
    }
    text += static_cast<char>(0x80 | (point >> 6 & 0x3F));
  }
  text += static_cast<char>(0x80 | (point & 0x3F));
}

bool is_valid_utf8(std::string_view text) {
  return valid_prefix(text) == text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (true) {
    const size_t n = valid_prefix(text);
    result.append(text.substr(0, n));
    text.remove_prefix(n);
    if (text.empty()) {
      return result;
    }
    result += "\xEF\xBF\xBD"; // U+FFFD
    text.remove_prefix(sequence_at(text).size);
  }
}

} // namespace deepspeed::text
