// Is this text UTF-8?
#include "deepspeed/formats/utf8.h"

#include <cstddef>

namespace deepspeed::formats {

bool is_utf8(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  for (size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4) {
      return false;
    }
    // The second byte carries the bounds of overlong forms, surrogates and the
    // end of Unicode.
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(i + 1) < low || byte(i + 1) > high) {
      return false;
    }
    for (size_t j = 2; j <= more; ++j) {
      if (byte(i + j) < 0x80 || byte(i + j) > 0xbf) {
        return false;
      }
    }
    i += more + 1;
  }
  return true;
}

} // namespace deepspeed::formats
