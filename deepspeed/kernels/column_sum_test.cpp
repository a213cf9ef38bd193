// Column sums against double, and their independence of the cuts.
#include "deepspeed/kernels/column_sum.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

template <typename T>
void compare(int64_t rows, int64_t columns, int64_t stride) {
  const std::vector<T> x = random_array<T>(rows * stride, 1);
  std::vector<float> out(columns, 7.0f);
  std::vector<double> expected(columns, 7.0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      expected[c] += static_cast<float>(x[r * stride + c]);
    }
  }
  ColumnSum<T> args;
  args.rows = rows;
  args.stride = stride;
  args.x = x.data();
  args.out = out.data();
  args.accumulate = true;
  column_sum(args, 0, columns);
  expect_near(out, expected, 3e-7, static_cast<double>(rows) + 7);

  std::vector<float> whole(columns, NAN);
  std::vector<float> cut(columns, NAN);
  args.accumulate = false;
  args.out = whole.data();
  column_sum(args, 0, columns);
  args.out = cut.data();
  for (int64_t c = 0; c < columns; c += 7) {
    column_sum(args, c, std::min(c + 7, columns));
  }
  expect_same_bits(whole, cut);
}

TEST(ColumnSum, MatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    compare<T>(0, 5, 5);
    compare<T>(1, 1, 1);
    compare<T>(63, 17, 20);
    compare<T>(65, 64, 64);
    compare<T>(129, 100, 300);
    compare<T>(800, 768, 768);
  });
}

TEST(ColumnSum, OneBadValueStaysInItsColumn) {
  for_each_isa([] {
    std::vector<float> x(10 * 20, 1.0f);
    x[3 * 20 + 4] = INFINITY;
    std::vector<float> out(20);
    ColumnSum<float> args;
    args.rows = 10;
    args.stride = 20;
    args.x = x.data();
    args.out = out.data();
    column_sum(args, 0, 20);
    for (int64_t c = 0; c < 20; ++c) {
      EXPECT_EQ(out[c], c == 4 ? INFINITY : 10.0f);
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
