// Statistics of one row of floats, for the kernels that normalize; included
// again for each instruction set.
#if defined(DEEPSPEED_KERNELS_LAYER_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_LAYER_NORM_INL_H_
#undef DEEPSPEED_KERNELS_LAYER_NORM_INL_H_
#else
#define DEEPSPEED_KERNELS_LAYER_NORM_INL_H_
#endif

#include <cmath>

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

struct RowStatistics {
  float mean;
  float rstd; // 1 / sqrt(variance + eps)
};

// `sum` holds the lane-wise sums of the row, which whoever wrote it had anyway.
HWY_INLINE RowStatistics
row_statistics(const float* row, int64_t count, V sum, float eps) {
  const float n = static_cast<float>(count);
  const float mean = sum_of_lanes(sum) / n;
  V squares = zero();
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    const V x = hn::Sub(load(row + i, part), set(mean));
    const V centered = fill_rest(x, 0.0f, part);
    squares = hn::MulAdd(centered, centered, squares);
  });
  return {mean, 1.0f / std::sqrt(sum_of_lanes(squares) / n + eps)};
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
