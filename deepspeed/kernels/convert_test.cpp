// Conversions against base::BFloat16 and base::Float16, for values of every
// kind.
#include "deepspeed/kernels/convert.h"

#include <bit>

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

TEST(Convert, RoundsAsTheScalarType) {
  std::vector<float> x;
  // All 2^16 upper halves, each with lower halves around the ties.
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    for (uint32_t lower :
         {0x0000u,
          0x0001u,
          0x0fffu,
          0x1000u,
          0x1001u,
          0x3000u,
          0x7fffu,
          0x8000u,
          0x8001u}) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  const auto n = static_cast<int64_t>(x.size());
  for_each_isa([&] {
    std::vector<base::BFloat16> y(n);
    to_bfloat16(x.data(), n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(y[i].bits, base::BFloat16(x[i]).bits) << i;
    }
    std::vector<float> back(n);
    to_float(y.data(), n, back.data());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{y[i].bits} << 16);
    }
    std::vector<base::Float16> half(n);
    to_float16(x.data(), n, half.data());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(half[i].bits, base::Float16(x[i]).bits) << x[i];
    }
    to_float(half.data(), n, back.data());
    for (int64_t i = 0; i < n; ++i) {
      const float expected = static_cast<float>(half[i]);
      ASSERT_TRUE(
          std::bit_cast<uint32_t>(back[i]) ==
              std::bit_cast<uint32_t>(expected) ||
          (std::isnan(back[i]) && std::isnan(expected)))
          << x[i];
    }
  });
}

TEST(Convert, TouchesNothingPastTheEnd) {
  for_each_isa([] {
    for (int64_t n = 0; n < 40; ++n) {
      const std::vector<float> x = random_array<float>(n, 1);
      std::vector<base::BFloat16> y(n + 1, base::BFloat16(7.0f));
      to_bfloat16(x.data(), n, y.data());
      EXPECT_EQ(y[n].bits, base::BFloat16(7.0f).bits);
      std::vector<float> z(n + 1, 7.0f);
      to_float(y.data(), n, z.data());
      EXPECT_EQ(z[n], 7.0f);
      std::vector<base::Float16> half(n + 1, base::Float16(7.0f));
      to_float16(x.data(), n, half.data());
      EXPECT_EQ(half[n].bits, base::Float16(7.0f).bits);
      to_float(half.data(), n, z.data());
      EXPECT_EQ(z[n], 7.0f);
    }
  });
}

TEST(Convert, ScaledSums) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    for (int64_t n : {1, 16, 37}) {
      const std::vector<T> x = random_array<T>(n, 1);
      std::vector<float> y = random_array<float>(n, 2);
      std::vector<double> expected = doubles(y);
      for (int64_t i = 0; i < n; ++i) {
        expected[i] += 0.3f * static_cast<double>(static_cast<float>(x[i]));
      }
      scale_add(0.3f, x.data(), n, y.data());
      expect_near(y, expected, 1e-7);
      scale(2.0f, n, y.data());
      for (double& value : expected) {
        value *= 2;
      }
      expect_near(y, expected, 1e-7, 2.0);
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
