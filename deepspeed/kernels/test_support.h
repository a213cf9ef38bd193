// What the tests of the kernels share: random data, and running on every
// instruction set of the machine.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/dropout.h"
#include "deepspeed/kernels/isa.h"

namespace deepspeed::kernels {

// Calls `test` once with each instruction set in force.
template <typename Test>
void for_each_isa(Test&& test) {
  for (const std::string& isa : available_isas()) {
    SCOPED_TRACE(isa);
    force_isa(isa);
    test();
  }
  force_isa(available_isas().front());
}

// Same, for float, BFloat16 and Float16: test(T()).
template <typename Test>
void for_each_isa_and_type(Test&& test) {
  for_each_isa([&] {
    {
      SCOPED_TRACE("float");
      test(float());
    }
    {
      SCOPED_TRACE("bfloat16");
      test(base::BFloat16());
    }
    {
      SCOPED_TRACE("float16");
      test(base::Float16());
    }
  });
}

// Normal random numbers, rounded to T.
template <typename T>
std::vector<T> random_array(int64_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x(n);
  for (T& value : x) {
    value = T(scale * normal(generator));
  }
  return x;
}

// The exact values of x.
template <typename T>
std::vector<double> doubles(const std::vector<T>& x) {
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = static_cast<float>(x[i]);
  }
  return y;
}

// One unit in the last place of T, relative to the value; 0 for float.
template <typename T>
constexpr double kRounding = 0.0;
template <>
constexpr inline double kRounding<base::BFloat16> = 0x1p-8;
template <>
constexpr inline double kRounding<base::Float16> = 0x1p-11;

// |actual - expected| <= relative * (|expected| + magnitude), where bfloat16
// and fp16 get one unit in their last place on top for the final rounding.
template <typename T>
void expect_near(
    const std::vector<T>& actual,
    const std::vector<double>& expected,
    double relative,
    double magnitude = 1.0) {
  ASSERT_EQ(actual.size(), expected.size());
  // The smallest number of fp16 is 2^-24.
  const double smallest = std::is_same_v<T, base::Float16> ? 0x1p-24 : 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double value = static_cast<float>(actual[i]);
    const double bound = relative * (std::abs(expected[i]) + magnitude) +
        kRounding<T> * std::abs(expected[i]) + smallest;
    ASSERT_NEAR(value, expected[i], bound) << "element " << i;
  }
}

template <typename T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)), 0);
}

// Visits and positions of `tokens` tokens, in sequences of eleven.
struct TestTokens {
  explicit TestTokens(int64_t tokens) : visit(tokens), position(tokens) {
    for (int64_t i = 0; i < tokens; ++i) {
      visit[i] = 77 + (uint64_t{1} << 33) * static_cast<uint64_t>(i / 11);
      position[i] = static_cast<uint32_t>(i % 11);
    }
  }
  TokenKeys keys() const {
    return {visit.data(), position.data()};
  }
  std::vector<uint64_t> visit;
  std::vector<uint32_t> position;
};

// The factor of one element by the definition in dropout.h, from the scalar
// Philox of base/.
inline double dropout_factor(
    const Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    int64_t column) {
  if (!dropout.active()) {
    return 1.0;
  }
  const base::PhiloxCounter words = base::philox(
      {row,
       static_cast<uint32_t>(column / 8),
       static_cast<uint32_t>(visit),
       static_cast<uint32_t>(visit >> 32)},
      dropout.key);
  const uint32_t word = words[column % 8 / 2];
  const uint32_t number = column % 2 == 0 ? word & 0xffff : word >> 16;
  return number < dropout.threshold ? 0.0 : dropout.scale;
}

} // namespace deepspeed::kernels
