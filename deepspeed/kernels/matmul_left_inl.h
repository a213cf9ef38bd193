// The packed left operand of a matrix product; included again for each
// instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_LEFT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_LEFT_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_LEFT_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_LEFT_INL_H_
#endif

#include "deepspeed/kernels/matmul_pack_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Packed lines of the left operand, panel by panel.
template <typename Unit>
class PackedLeft {
 public:
  // In floats; `lines` is a multiple of Unit::kRows.
  static int64_t size(int64_t lines, int64_t units) {
    return lines / Unit::kRows * panel_pitch<Unit::kRows>(units);
  }

  HWY_INLINE PackedLeft(
      const Lines<typename Unit::T>& lines,
      int64_t units,
      float* to)
      : data_(to), pitch_(panel_pitch<Unit::kRows>(units)) {
    pack<Unit, Unit::kRows>(lines, to);
  }

  // From line i on, a multiple of Unit::kRows.
  HWY_INLINE Left panel(int64_t i) const {
    return {data_ + i / Unit::kRows * pitch_, 1, Unit::kRows};
  }

 private:
  const float* data_;
  int64_t pitch_;
};

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
