// Loads and stores of base::Float16, beside those of simd_inl.h: included again
// for each instruction set, so its guard toggles.
#if defined(DEEPSPEED_KERNELS_FLOAT16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_FLOAT16_INL_H_
#undef DEEPSPEED_KERNELS_FLOAT16_INL_H_
#else
#define DEEPSPEED_KERNELS_FLOAT16_INL_H_
#endif

#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

using base::Float16;

// Highway's conversion without F16C truncates; there, lane by lane.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
using DF16 = hn::Rebind<hwy::float16_t, D>;
HWY_INLINE V load(const Float16* p, Full) {
  const auto bits = hn::LoadU(D16(), reinterpret_cast<const uint16_t*>(p));
  return hn::PromoteTo(D(), hn::BitCast(DF16(), bits));
}
HWY_INLINE void store(V x, Float16* p, Full) {
  const DU du;
  const auto bits = hn::BitCast(D16(), hn::DemoteTo(DF16(), x));
  const auto wide = hn::PromoteTo(du, bits);
  const auto nan = hn::RebindMask(du, hn::IsNaN(x));
  const auto result = hn::IfThenElse(nan, hn::Set(du, 0x7e00), wide);
  hn::StoreU(
      hn::TruncateTo(D16(), result), D16(), reinterpret_cast<uint16_t*>(p));
}
#else
HWY_INLINE V load(const Float16* p, Full) {
  float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    lanes[i] = static_cast<float>(p[i]);
  }
  return load(lanes, Full());
}
HWY_INLINE void store(V x, Float16* p, Full) {
  float lanes[kLanes];
  store(x, lanes, Full());
  for (int64_t i = 0; i < kLanes; ++i) {
    p[i] = Float16(lanes[i]);
  }
}
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
