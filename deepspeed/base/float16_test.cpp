// Float16 against the definition of binary16: all bit patterns, all midpoints.
#include "deepspeed/base/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace deepspeed::base {
namespace {

constexpr uint16_t kInfinity = 0x7c00;

Float16 from_bits(uint32_t bits) {
  Float16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

// The definition, by arithmetic in double.
double value_of(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 0x1f);
  const double mantissa = bits & 0x3ff;
  const double magnitude = exponent == 0
      ? std::ldexp(mantissa, -24)
      : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(Float16, EveryFiniteValueSurvives) {
  for (const uint32_t sign : {0x0000u, 0x8000u}) {
    for (uint32_t magnitude = 0; magnitude < kInfinity; ++magnitude) {
      const uint32_t bits = sign | magnitude;
      const float value = static_cast<float>(from_bits(bits));
      ASSERT_EQ(value, value_of(bits));
      ASSERT_EQ(Float16(value).bits, bits);
    }
  }
}

TEST(Float16, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits + 1 < kInfinity; ++bits) {
    // Exact in float: one bit more than binary16 has.
    const float middle =
        static_cast<float>((value_of(bits) + value_of(bits + 1)) / 2);
    const uint32_t even = bits + (bits & 1);
    ASSERT_EQ(Float16(middle).bits, even);
    ASSERT_EQ(Float16(-middle).bits, even | 0x8000);
    ASSERT_EQ(Float16(std::nextafter(middle, 0.0f)).bits, bits);
    ASSERT_EQ(Float16(std::nextafter(middle, INFINITY)).bits, bits + 1);
  }
}

TEST(Float16, Extremes) {
  EXPECT_EQ(Float16(65519.996f).bits, 0x7bff);
  EXPECT_EQ(Float16(65520.0f).bits, kInfinity);
  EXPECT_EQ(Float16(-INFINITY).bits, 0xfc00);
  EXPECT_EQ(Float16(std::numeric_limits<float>::max()).bits, kInfinity);
  EXPECT_EQ(Float16(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_EQ(Float16(-0.0f).bits, 0x8000);
  EXPECT_EQ(Float16(NAN).bits, 0x7e00);
  EXPECT_EQ(Float16(-NAN).bits, 0x7e00);
  EXPECT_EQ(static_cast<float>(from_bits(kInfinity)), INFINITY);
  EXPECT_EQ(static_cast<float>(from_bits(0xfc00)), -INFINITY);
  EXPECT_TRUE(std::isnan(static_cast<float>(from_bits(0x7c01))));
}

} // namespace
} // namespace deepspeed::base
