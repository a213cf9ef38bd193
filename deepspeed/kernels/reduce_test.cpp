// Reductions of several arrays, bit for bit against one addition at a time.
#include "deepspeed/kernels/reduce.h"

#include <array>
#include <limits>

#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

using base::BFloat16;
using base::Float16;

template <typename T>
std::vector<const T*> pointers(const std::vector<std::vector<T>>& arrays) {
  std::vector<const T*> result;
  for (const std::vector<T>& array : arrays) {
    result.push_back(array.data());
  }
  return result;
}

// Magnitudes far apart: another order of the additions gives other bits.
template <typename T>
std::vector<std::vector<T>> inputs(int64_t count, int64_t n) {
  std::vector<std::vector<T>> arrays;
  for (int64_t k = 0; k < count; ++k) {
    const float scale = k % 2 == 0 ? 900.0f : 0.3f;
    arrays.push_back(random_array<T>(n, static_cast<uint32_t>(k + 1), scale));
  }
  return arrays;
}

template <typename T>
void compare_sums() {
  for (const int64_t count : {1, 2, 3, 5}) {
    for (const int64_t n : {0, 1, 7, 16, 33, 1000}) {
      const auto arrays = inputs<T>(count, n);
      std::vector<T> expected(n + 1, T(7.0f));
      for (int64_t i = 0; i < n; ++i) {
        float total = static_cast<float>(arrays[0][i]);
        for (int64_t k = 1; k < count; ++k) {
          total += static_cast<float>(arrays[k][i]);
        }
        expected[i] = T(total);
      }
      std::vector<T> out(n + 1, T(7.0f));
      reduce_sum<T>(pointers(arrays), n, out.data());
      expect_same_bits(out, expected);

      auto in_place = arrays;
      in_place.back().push_back(T(7.0f));
      reduce_sum<T>(pointers(in_place), n, in_place.back().data());
      expect_same_bits(in_place.back(), expected);
    }
  }
}

TEST(Reduce, SumsInTheOrderOfTheArrays) {
  for_each_isa([] {
    compare_sums<float>();
    compare_sums<BFloat16>();
    compare_sums<Float16>();
  });
}

TEST(Reduce, SixteenBitsAreRoundedOnce) {
  for_each_isa([] {
    // 256 + 1 is 256 in bfloat16; 256 + 1 + 1 is 258 when rounded at the end.
    const std::vector<BFloat16> large(20, BFloat16(256.0f));
    const std::vector<BFloat16> one(20, BFloat16(1.0f));
    const std::array<const BFloat16*, 3> arrays{
        large.data(), one.data(), one.data()};
    std::vector<BFloat16> out(20);
    reduce_sum<BFloat16>(arrays, 20, out.data());
    expect_same_bits(out, std::vector<BFloat16>(20, BFloat16(258.0f)));
  });
}

TEST(Reduce, EveryFloat16PatternPasses) {
  std::vector<Float16> x(65536);
  std::vector<Float16> expected(65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    x[bits].bits = static_cast<uint16_t>(bits);
    expected[bits] = Float16(static_cast<float>(x[bits]));
  }
  for_each_isa([&] {
    std::vector<Float16> out(65536);
    reduce_sum<Float16>(
        std::array<const Float16*, 1>{x.data()}, 65536, out.data());
    expect_same_bits(out, expected);
  });
}

TEST(Reduce, WideTypes) {
  const std::vector<std::vector<double>> doubles{{1e16, 1}, {1, 2}, {-1e16, 3}};
  std::vector<double> sum(2);
  reduce_sum<double>(pointers(doubles), 2, sum.data());
  EXPECT_EQ(sum, (std::vector<double>{0, 6}));

  const int64_t most = std::numeric_limits<int64_t>::max();
  const std::vector<std::vector<int64_t>> integers{{most, 5}, {1, -7}};
  std::vector<int64_t> total(2);
  reduce_sum<int64_t>(pointers(integers), 2, total.data());
  EXPECT_EQ(total[0], std::numeric_limits<int64_t>::min());
  EXPECT_EQ(total[1], -2);
}

TEST(Reduce, Maxima) {
  const std::vector<std::vector<float>> floats{
      {1, NAN, 3, -INFINITY}, {2, 5, NAN, -4}, {0, 6, 9, -5}};
  std::vector<float> out(4);
  reduce_max<float>(pointers(floats), 4, out.data());
  EXPECT_EQ(out[0], 2);
  EXPECT_TRUE(std::isnan(out[1]));
  EXPECT_TRUE(std::isnan(out[2]));
  EXPECT_EQ(out[3], -4);

  const std::vector<std::vector<Float16>> halves{
      {Float16(1.5f)}, {Float16(-2.0f)}};
  std::vector<Float16> half(1);
  reduce_max<Float16>(pointers(halves), 1, half.data());
  EXPECT_EQ(static_cast<float>(half[0]), 1.5f);

  const std::vector<std::vector<int64_t>> integers{{-3}, {-1}, {-2}};
  std::vector<int64_t> integer(1);
  reduce_max<int64_t>(pointers(integers), 1, integer.data());
  EXPECT_EQ(integer[0], -1);
}

} // namespace
} // namespace deepspeed::kernels
