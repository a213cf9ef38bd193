// Column sums in blocks of rows: small rounding errors, a fixed order.
#include "deepspeed/kernels/column_sum.h"

#include <algorithm>

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/column_sum.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Rows that are summed apart: the error grows with the number of blocks plus
// the length of one, not with the number of rows.
constexpr int64_t kRowBlock = 64;
constexpr int64_t kWide = 4; // vectors of columns that run side by side

// kCount vectors of columns from `column` on.
template <int64_t kCount, typename T, typename Size>
HWY_INLINE void sum_columns(
    const ColumnSum<T>& args,
    int64_t column,
    Size part) {
  V total[kCount];
  for (int64_t k = 0; k < kCount; ++k) {
    total[k] = zero();
  }
  for (int64_t first = 0; first < args.rows; first += kRowBlock) {
    const int64_t last = HWY_MIN(first + kRowBlock, args.rows);
    V sum[kCount];
    for (int64_t k = 0; k < kCount; ++k) {
      sum[k] = zero();
    }
    for (int64_t row = first; row < last; ++row) {
      const T* x = args.x + row * args.stride + column;
      for (int64_t k = 0; k < kCount; ++k) {
        sum[k] = hn::Add(sum[k], load(x + k * kLanes, part));
      }
    }
    for (int64_t k = 0; k < kCount; ++k) {
      total[k] = hn::Add(total[k], sum[k]);
    }
  }
  for (int64_t k = 0; k < kCount; ++k) {
    float* out = args.out + column + k * kLanes;
    const V old = args.accumulate ? load(out, part) : zero();
    store(hn::Add(old, total[k]), out, part);
  }
}

template <typename T>
HWY_INLINE void column_sum_range(
    const ColumnSum<T>& args,
    int64_t begin,
    int64_t end) {
  int64_t column = begin;
  for (; column + kWide * kLanes <= end; column += kWide * kLanes) {
    sum_columns<kWide>(args, column, Full());
  }
  for_vectors(end - column, [&](int64_t i, auto part) HWY_ATTR {
    sum_columns<1>(args, column + i, part);
  });
}
DS_RANGE_KERNEL(column_sum, ColumnSum)

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
DS_RANGE_ENTRY(column_sum, ColumnSum)
} // namespace deepspeed::kernels
#endif // HWY_ONCE
