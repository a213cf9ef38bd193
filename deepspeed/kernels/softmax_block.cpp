// Softmax in blocks of words, a vector of tokens at a time.
#include "deepspeed/kernels/softmax_block.h"

#include <cmath>
#include <limits>

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/softmax_block.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/exp_inl.h"
#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// kCount vectors of columns, from `first` on, side by side down the rows.
template <int64_t kCount, typename T>
HWY_INLINE void softmax_columns(const SoftmaxBlock<T>& args, int64_t first) {
  // Not infinity: -inf - -inf would be NaN where all logits of a block are
  // -inf, and those of another are not.
  const float lowest = std::numeric_limits<float>::lowest();
  V max[kCount];
  V sum[kCount];
  for (int64_t k = 0; k < kCount; ++k) {
    max[k] = set(lowest);
    sum[k] = zero();
  }
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* row = args.logits + r * args.stride + first;
    const V bias = set(static_cast<float>(args.bias[r]));
#pragma GCC unroll 4
    for (int64_t k = 0; k < kCount; ++k) {
      max[k] = hn::Max(max[k], hn::Add(load(row + k * kLanes, Full()), bias));
    }
  }
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* row = args.logits + r * args.stride + first;
    T* out = args.exponentials + r * args.stride + first;
    const V bias = set(static_cast<float>(args.bias[r]));
#pragma GCC unroll 4
    for (int64_t k = 0; k < kCount; ++k) {
      const V x = hn::Add(load(row + k * kLanes, Full()), bias);
      const V e = exp2(hn::Mul(hn::Sub(x, max[k]), set(kLog2E)));
      sum[k] = hn::Add(sum[k], e);
      store(hn::Mul(e, set(args.factor)), out + k * kLanes, Full());
    }
  }
  for (int64_t k = 0; k < kCount; ++k) {
    store(max[k], args.max + first + k * kLanes, Full());
    store(sum[k], args.sum + first + k * kLanes, Full());
  }
}

template <typename T>
HWY_INLINE void softmax_of_block(const SoftmaxBlock<T>& args) {
  static_assert(kSoftmaxColumns % (2 * kLanes) == 0);
  int64_t c = 0;
  for (; c + 4 * kLanes <= args.stride; c += 4 * kLanes) {
    softmax_columns<4>(args, c);
  }
  for (; c < args.stride; c += 2 * kLanes) {
    softmax_columns<2>(args, c);
  }
  for (int64_t r = 0; r < args.rows; ++r) {
    T* row = args.exponentials + r * args.stride;
    for (c = args.columns; c < args.stride; ++c) {
      row[c] = T(0.0f);
    }
  }
}

void factors_of_blocks(
    int64_t blocks,
    int64_t stride,
    float* max,
    const float* sum,
    const SoftmaxTotals& totals) {
  for (int64_t c = 0; c < stride; c += kLanes) {
    V most = set(std::numeric_limits<float>::lowest());
    for (int64_t b = 0; b < blocks; ++b) {
      most = hn::Max(most, load(max + b * stride + c, Full()));
    }
    V total = zero();
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = b * stride + c;
      const V scale = exp(hn::Sub(load(max + at, Full()), most));
      total = hn::MulAdd(load(sum + at, Full()), scale, total);
    }
    store(most, totals.max + c, Full());
    store(total, totals.log_sum + c, Full());
    for (int64_t i = c; i < c + kLanes; ++i) {
      totals.log_sum[i] = std::log(totals.log_sum[i]);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      float* const at = max + b * stride + c;
      const V scale = exp(hn::Sub(load(at, Full()), most));
      store(hn::Div(scale, total), at, Full());
    }
  }
}

template <typename T>
HWY_INLINE void row_sums(
    const T* x,
    int64_t rows,
    int64_t stride,
    const float* weights,
    float scale,
    bool add,
    float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    V sum = zero();
    for (int64_t c = 0; c < stride; c += kLanes) {
      const V weight = load(weights + c, Full());
      sum = hn::MulAdd(load(x + r * stride + c, Full()), weight, sum);
    }
    sums[r] = (add ? sums[r] : 0.0f) + scale * sum_of_lanes(sum);
  }
}

#define DS_SOFTMAX_KERNELS(suffix, T)                           \
  void softmax_of_block_##suffix(const SoftmaxBlock<T>& args) { \
    softmax_of_block(args);                                     \
  }                                                             \
  void row_sums_##suffix(                                       \
      const T* x,                                               \
      int64_t rows,                                             \
      int64_t stride,                                           \
      const float* weights,                                     \
      float scale,                                              \
      bool add,                                                 \
      float* sums) {                                            \
    row_sums(x, rows, stride, weights, scale, add, sums);       \
  }
DS_SOFTMAX_KERNELS(float, float)
DS_SOFTMAX_KERNELS(bfloat16, BFloat16)
DS_SOFTMAX_KERNELS(float16, Float16)
#undef DS_SOFTMAX_KERNELS

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(factors_of_blocks);

void softmax_factors(
    int64_t blocks,
    int64_t stride,
    float* max,
    const float* sum,
    const SoftmaxTotals& totals) {
  DS_DISPATCH(factors_of_blocks)(blocks, stride, max, sum, totals);
}

#define DS_SOFTMAX_ENTRIES(suffix, T)               \
  HWY_EXPORT(softmax_of_block_##suffix);            \
  template <>                                       \
  void softmax_block(const SoftmaxBlock<T>& args) { \
    DS_DISPATCH(softmax_of_block_##suffix)(args);   \
  }                                                 \
  HWY_EXPORT(row_sums_##suffix);                    \
  template <>                                       \
  void weighted_row_sums(                           \
      const T* x,                                   \
      int64_t rows,                                 \
      int64_t stride,                               \
      const float* weights,                         \
      float scale,                                  \
      bool add,                                     \
      float* sums) {                                \
    DS_DISPATCH(row_sums_##suffix)                  \
    (x, rows, stride, weights, scale, add, sums);   \
  }
DS_SOFTMAX_ENTRIES(float, float)
DS_SOFTMAX_ENTRIES(bfloat16, base::BFloat16)
DS_SOFTMAX_ENTRIES(float16, base::Float16)
#undef DS_SOFTMAX_ENTRIES

} // namespace deepspeed::kernels
#endif // HWY_ONCE
