// GELU and its derivative from one exponential and one division.
#include "deepspeed/kernels/gelu.h"

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/gelu.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"

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

template <typename T>
HWY_INLINE void bias_gelu_forward_range(
    const BiasGelu<T>& args,
    int64_t begin,
    int64_t end) {
  const V inverse_sqrt_2pi = set(0.3989422804014327f);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * args.columns;
    for_vectors(args.columns, [&](int64_t i, auto part) HWY_ATTR {
      V u = load(args.x + first + i, part);
      if (args.bias != nullptr) {
        u = hn::Add(u, load(args.bias + i, part));
      }
      const V gaussian = exp(hn::Mul(hn::Mul(u, set(-0.5f)), u));
      const V tail = normal_tail(hn::Abs(u), gaussian);
      const auto positive = hn::Gt(u, zero());
      const V phi = hn::IfThenElse(positive, hn::Sub(set(1.0f), tail), tail);
      store(hn::Mul(u, phi), args.y + first + i, part);
      if (args.derivative != nullptr) {
        const V density = hn::Mul(gaussian, inverse_sqrt_2pi);
        store(hn::MulAdd(u, density, phi), args.derivative + first + i, part);
      }
    });
  }
}
DS_RANGE_KERNEL(bias_gelu_forward, BiasGelu)

template <typename T>
HWY_INLINE void multiply(const T* a, const T* b, T* c, int64_t count) {
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Mul(load(a + i, part), load(b + i, part)), c + i, part);
  });
}
void multiply_float(const float* a, const float* b, float* c, int64_t count) {
  multiply(a, b, c, count);
}
void multiply_bfloat16(
    const BFloat16* a,
    const BFloat16* b,
    BFloat16* c,
    int64_t count) {
  multiply(a, b, c, count);
}
void multiply_float16(
    const Float16* a,
    const Float16* b,
    Float16* c,
    int64_t count) {
  multiply(a, b, c, count);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
DS_RANGE_ENTRY(bias_gelu_forward, BiasGelu)
HWY_EXPORT(multiply_float);
HWY_EXPORT(multiply_bfloat16);
HWY_EXPORT(multiply_float16);

template <>
void gelu_backward(
    int64_t columns,
    const float* dy,
    const float* derivative,
    float* dx,
    int64_t begin,
    int64_t end) {
  const int64_t first = begin * columns;
  DS_DISPATCH(multiply_float)
  (dy + first, derivative + first, dx + first, (end - begin) * columns);
}

template <>
void gelu_backward(
    int64_t columns,
    const base::BFloat16* dy,
    const base::BFloat16* derivative,
    base::BFloat16* dx,
    int64_t begin,
    int64_t end) {
  const int64_t first = begin * columns;
  DS_DISPATCH(multiply_bfloat16)
  (dy + first, derivative + first, dx + first, (end - begin) * columns);
}

template <>
void gelu_backward(
    int64_t columns,
    const base::Float16* dy,
    const base::Float16* derivative,
    base::Float16* dx,
    int64_t begin,
    int64_t end) {
  const int64_t first = begin * columns;
  DS_DISPATCH(multiply_float16)
  (dy + first, derivative + first, dx + first, (end - begin) * columns);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
