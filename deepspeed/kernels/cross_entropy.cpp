// Cross-entropy in two passes over a row: maximum, exponentials.
#include "deepspeed/kernels/cross_entropy.h"

#include <cmath>
#include <limits>

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/cross_entropy.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/exp_inl.h"
#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kSums = 4; // vectors of partial results, to hide latency

template <typename T, typename Size>
HWY_INLINE V load_logits(const T* row, const T* bias, int64_t i, Size part) {
  const V x = load(row + i, part);
  return bias == nullptr ? x : hn::Add(x, load(bias + i, part));
}

template <typename T>
HWY_INLINE float max_logit(const T* row, const T* bias, int64_t count) {
  const float lowest = -std::numeric_limits<float>::infinity();
  V most[kSums];
  for (V& m : most) {
    m = set(lowest);
  }
  int64_t i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
    for (int64_t k = 0; k < kSums; ++k) {
      most[k] =
          hn::Max(most[k], load_logits(row, bias, i + k * kLanes, Full()));
    }
  }
  for_vectors(count - i, [&](int64_t j, auto part) HWY_ATTR {
    const V x = fill_rest(load_logits(row, bias, i + j, part), lowest, part);
    most[0] = hn::Max(most[0], x);
  });
  return max_of_lanes(
      hn::Max(hn::Max(most[0], most[1]), hn::Max(most[2], most[3])));
}

// Sum over the row of exp(logit - max).
template <typename T>
HWY_INLINE float sum_of_exponentials(
    const T* row,
    const T* bias,
    int64_t count,
    float max) {
  V sum[kSums];
  for (V& s : sum) {
    s = zero();
  }
  int64_t i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
    for (int64_t k = 0; k < kSums; ++k) {
      const V x = load_logits(row, bias, i + k * kLanes, Full());
      const V e = exp(hn::Sub(x, set(max)));
      sum[k] = hn::Add(sum[k], e);
    }
  }
  for_vectors(count - i, [&](int64_t j, auto part) HWY_ATTR {
    const V x = load_logits(row, bias, i + j, part);
    const V e = exp(hn::Sub(x, set(max)));
    sum[0] = hn::Add(sum[0], fill_rest(e, 0.0f, part));
  });
  return sum_of_lanes(
      hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
}

// First column whose logit matches, or -1.
template <typename T, typename Matches>
HWY_INLINE int64_t
first_column(const T* row, const T* bias, int64_t count, Matches&& matches) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const int64_t lane =
        hn::FindFirstTrue(D(), matches(load_logits(row, bias, i, Full())));
    if (lane >= 0) {
      return i + lane;
    }
  }
  const Part part{static_cast<size_t>(count - i)};
  const auto mask = matches(load_logits(row, bias, i, part));
  const int64_t lane =
      hn::FindFirstTrue(D(), hn::And(mask, hn::FirstN(D(), part.count)));
  return lane >= 0 ? i + lane : -1;
}

// As torch.argmax: the first NaN, or else the first column of the maximum.
template <typename T>
HWY_INLINE int64_t predicted_column(
    const T* row,
    const T* bias,
    int64_t count,
    float max,
    bool has_nan) {
  if (has_nan) {
    const int64_t column = first_column(
        row, bias, count, [](V x) HWY_ATTR { return hn::IsNaN(x); });
    if (column >= 0) {
      return column;
    }
  }
  return first_column(
      row, bias, count, [&](V x) HWY_ATTR { return hn::Eq(x, set(max)); });
}

template <typename T>
HWY_INLINE void cross_entropy_range(
    const CrossEntropy<T>& args,
    int64_t begin,
    int64_t end) {
  const int64_t count = args.vocabulary;
  for (int64_t r = begin; r < end; ++r) {
    const T* row = args.logits + r * args.stride;
    const int64_t label = args.labels[r];
    const float max = max_logit(row, args.bias, count);
    float of_label = static_cast<float>(row[label]);
    if (args.bias != nullptr) {
      of_label += static_cast<float>(args.bias[label]);
    }
    const float sum = sum_of_exponentials(row, args.bias, count, max);
    args.loss[r] = std::log(sum) + (max - of_label);
    if (args.predicted != nullptr) {
      args.predicted[r] = static_cast<int32_t>(
          predicted_column(row, args.bias, count, max, sum != sum));
    }
  }
}
DS_RANGE_KERNEL(cross_entropy, CrossEntropy)

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
DS_RANGE_ENTRY(cross_entropy, CrossEntropy)
} // namespace deepspeed::kernels
#endif // HWY_ONCE
