// IEEE-754 binary16 as 16 bits, with the rounding that libtorch uses.
#pragma once

#include <bit>
#include <cstdint>

namespace deepspeed::base {

// Same layout as c10::Half: 1 bit sign, 5 exponent (bias 15), 10 mantissa.
struct Float16 {
  uint16_t bits = 0;

  constexpr Float16() = default;
  // Rounds to nearest even, from 65520 on to infinity; every NaN becomes
  // 0x7e00.
  constexpr explicit Float16(float value) : bits(round(value)) {}
  constexpr explicit operator float() const {
    const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu;
    const uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0) { // zero and subnormal: a multiple of 2^-24
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + (127 - 15);
    return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
  }

 private:
  static constexpr uint16_t round(float value) {
    if (value != value) {
      return 0x7e00;
    }
    const uint32_t word = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (word >> 16) & 0x8000u;
    const uint32_t magnitude = word & 0x7fffffffu;
    if (magnitude >= 0x477ff000u) { // 65520
      return static_cast<uint16_t>(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { // below 2^-14: adding 2^-1 rounds to 2^-24
      const float sum = std::bit_cast<float>(magnitude) + 0.5f;
      const uint32_t steps = std::bit_cast<uint32_t>(sum) - 0x3f000000u;
      return static_cast<uint16_t>(sign | steps);
    }
    const uint32_t rebased = magnitude - ((127u - 15u) << 23);
    const uint32_t odd = (rebased >> 13) & 1u;
    return static_cast<uint16_t>(sign | (rebased + 0xfffu + odd) >> 13);
  }
};
static_assert(sizeof(Float16) == 2);

} // namespace deepspeed::base
