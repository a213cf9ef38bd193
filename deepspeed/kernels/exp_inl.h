// Exponentials of vectors; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_EXP_INL_H_
#undef DEEPSPEED_KERNELS_EXP_INL_H_
#else
#define DEEPSPEED_KERNELS_EXP_INL_H_
#endif

#include "deepspeed/kernels/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// exp(x) within 2 units in the last place for x < 88.7 (or NaN); below -87.3
// the result is 0. Range reduction by Cody and Waite, polynomial of Cephes
// expf.
HWY_INLINE V exp(V x) {
  // In the low bits of `biased` stands round(x / ln 2) + 127.
  const V magic = set(12582912.0f + 127.0f); // 1.5 * 2^23 + 127
  const V biased = hn::MulAdd(x, set(1.44269504088896341f), magic);
  const V n = hn::Sub(biased, magic);
  V r = hn::NegMulAdd(n, set(0.693359375f), x);
  r = hn::NegMulAdd(n, set(-2.12194440e-4f), r);
  V p = set(1.9875691500e-4f);
  p = hn::MulAdd(p, r, set(1.3981999507e-3f));
  p = hn::MulAdd(p, r, set(8.3334519073e-3f));
  p = hn::MulAdd(p, r, set(4.1665795894e-2f));
  p = hn::MulAdd(p, r, set(1.6666665459e-1f));
  p = hn::MulAdd(p, r, set(5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), set(1.0f));
  const V power =
      hn::BitCast(D(), hn::ShiftLeft<23>(hn::BitCast(DU(), biased)));
  const auto underflow = hn::Lt(x, set(-87.3f));
  return hn::IfThenZeroElse(underflow, hn::Mul(p, power));
}

constexpr float kLog2E = 1.44269504f;

// 2^x within 3 units in the last place for x < 128 (or NaN); below -126 the
// result is less than 2^-125, below -127 it is 0. A minimax polynomial, between
// integers; it has half the cost of exp().
HWY_INLINE V exp2(V x) {
  // In the low bits of `biased` stands round(x) + 127.
  const V magic = set(12582912.0f + 127.0f); // 1.5 * 2^23 + 127
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  x = hn::Max(set(-127.0f), x); // of a NaN and a number, it takes the second
#else
  x = hn::IfThenElse(hn::Lt(x, set(-127.0f)), set(-127.0f), x);
#endif
  const V biased = hn::Add(x, magic);
  const V r = hn::Sub(x, hn::Sub(biased, magic));
  V p = set(1.327647245e-3f);
  p = hn::MulAdd(p, r, set(9.675540961e-3f));
  p = hn::MulAdd(p, r, set(5.550713092e-2f));
  p = hn::MulAdd(p, r, set(2.402212024e-1f));
  p = hn::MulAdd(p, r, set(6.931469440e-1f));
  p = hn::MulAdd(p, r, set(1.0f));
  return hn::Mul(
      p, hn::BitCast(D(), hn::ShiftLeft<23>(hn::BitCast(DU(), biased))));
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
