// GELU and its derivative of a vector, from one exponential and one division;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_GELU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_GELU_INL_H_
#undef DEEPSPEED_KERNELS_GELU_INL_H_
#else
#define DEEPSPEED_KERNELS_GELU_INL_H_
#endif

#include "deepspeed/kernels/exp_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Phi(-|u|) = exp(-u^2 / 2) t Q(t) with t = 1 / (1 + 0.35 |u|). Q is a minimax
// fit of degree 8 (Lawson's iteration, for |u| <= 14.5, where the exponential
// reaches zero); its relative error is below 3.3e-8.
HWY_INLINE V normal_tail(V magnitude, V gaussian) {
  const V t = hn::Div(set(1.0f), hn::MulAdd(set(0.35f), magnitude, set(1.0f)));
  V q = set(-0.0291584842f);
  q = hn::MulAdd(q, t, set(0.14403379f));
  q = hn::MulAdd(q, t, set(-0.255844802f));
  q = hn::MulAdd(q, t, set(0.159326136f));
  q = hn::MulAdd(q, t, set(-0.0232166536f));
  q = hn::MulAdd(q, t, set(0.105554253f));
  q = hn::MulAdd(q, t, set(0.119820863f));
  q = hn::MulAdd(q, t, set(0.139863566f));
  q = hn::MulAdd(q, t, set(0.139621302f));
  return hn::Mul(hn::Mul(gaussian, t), q);
}

struct Gelu {
  V value;
  V derivative;
};

HWY_INLINE Gelu gelu(V u) {
  const V gaussian = exp(hn::Mul(hn::Mul(u, set(-0.5f)), u));
  const V tail = normal_tail(hn::Abs(u), gaussian);
  const auto positive = hn::Gt(u, zero());
  const V phi = hn::IfThenElse(positive, hn::Sub(set(1.0f), tail), tail);
  const V density = hn::Mul(gaussian, set(0.3989422804014327f));
  return {hn::Mul(u, phi), hn::MulAdd(u, density, phi)};
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
