// bfloat16 as 16 bits, with the rounding that libtorch uses.
#pragma once

#include <bit>
#include <cstdint>

namespace deepspeed::base {

// The upper half of an IEEE-754 binary32; same layout as c10::BFloat16.
struct BFloat16 {
  uint16_t bits = 0;

  constexpr BFloat16() = default;
  // Rounds to nearest even; every NaN becomes 0x7fc0.
  constexpr explicit BFloat16(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    bits = value != value
        ? uint16_t{0x7fc0}
        : static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
  }
  constexpr explicit operator float() const {
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
};
static_assert(sizeof(BFloat16) == 2);

} // namespace deepspeed::base
