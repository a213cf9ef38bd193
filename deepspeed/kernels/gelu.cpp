// GELU with the bias before it, and its backward.
#include "deepspeed/kernels/gelu.h"

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/gelu.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"
#include "deepspeed/kernels/gelu_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

template <typename T>
HWY_INLINE void bias_gelu_forward_range(
    const BiasGelu<T>& args,
    int64_t begin,
    int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * args.columns;
    for_vectors(args.columns, [&](int64_t i, auto part) HWY_ATTR {
      V u = load(args.x + first + i, part);
      if (args.bias != nullptr) {
        u = hn::Add(u, load(args.bias + i, part));
      }
      const Gelu result = gelu(u);
      store(result.value, args.y + first + i, part);
      if (args.derivative != nullptr) {
        store(result.derivative, args.derivative + first + i, part);
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
