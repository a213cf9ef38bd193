// Conversions and scaled sums.
#include "deepspeed/kernels/convert.h"

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/convert.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

template <typename From, typename To>
HWY_INLINE void convert(const From* x, int64_t n, To* y) {
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    store_exactly(load(x + i, part), y + i, part);
  });
}
void round_array(const float* x, int64_t n, BFloat16* y) {
  convert(x, n, y);
}
void widen_array(const BFloat16* x, int64_t n, float* y) {
  convert(x, n, y);
}
void round_array_float16(const float* x, int64_t n, Float16* y) {
  convert(x, n, y);
}
void widen_array_float16(const Float16* x, int64_t n, float* y) {
  convert(x, n, y);
}

template <typename T>
HWY_INLINE void add_scaled(float factor, const T* x, int64_t n, float* y) {
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    const V sum = hn::MulAdd(set(factor), load(x + i, part), load(y + i, part));
    store(sum, y + i, part);
  });
}
template <typename T>
HWY_INLINE void copy_scaled(float factor, const T* x, int64_t n, T* y) {
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Mul(set(factor), load(x + i, part)), y + i, part);
  });
}

#define DS_SCALE_KERNELS(suffix, T)                                         \
  void add_scaled_##suffix(float factor, const T* x, int64_t n, float* y) { \
    add_scaled(factor, x, n, y);                                            \
  }                                                                         \
  void copy_scaled_##suffix(float factor, const T* x, int64_t n, T* y) {    \
    copy_scaled(factor, x, n, y);                                           \
  }
DS_SCALE_KERNELS(float, float)
DS_SCALE_KERNELS(bfloat16, BFloat16)
DS_SCALE_KERNELS(float16, Float16)
#undef DS_SCALE_KERNELS

void scale_array(float factor, int64_t n, float* x) {
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Mul(set(factor), load(x + i, part)), x + i, part);
  });
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(round_array);
HWY_EXPORT(widen_array);
HWY_EXPORT(round_array_float16);
HWY_EXPORT(widen_array_float16);
HWY_EXPORT(scale_array);

void to_bfloat16(const float* x, int64_t n, base::BFloat16* y) {
  DS_DISPATCH(round_array)(x, n, y);
}

void to_float(const base::BFloat16* x, int64_t n, float* y) {
  DS_DISPATCH(widen_array)(x, n, y);
}

void to_float16(const float* x, int64_t n, base::Float16* y) {
  DS_DISPATCH(round_array_float16)(x, n, y);
}

void to_float(const base::Float16* x, int64_t n, float* y) {
  DS_DISPATCH(widen_array_float16)(x, n, y);
}

#define DS_SCALE_ENTRIES(suffix, T)                              \
  HWY_EXPORT(add_scaled_##suffix);                               \
  template <>                                                    \
  void scale_add(float scale, const T* x, int64_t n, float* y) { \
    DS_DISPATCH(add_scaled_##suffix)(scale, x, n, y);            \
  }                                                              \
  HWY_EXPORT(copy_scaled_##suffix);                              \
  template <>                                                    \
  void scale_copy(float scale, const T* x, int64_t n, T* y) {    \
    DS_DISPATCH(copy_scaled_##suffix)(scale, x, n, y);           \
  }
DS_SCALE_ENTRIES(float, float)
DS_SCALE_ENTRIES(bfloat16, base::BFloat16)
DS_SCALE_ENTRIES(float16, base::Float16)
#undef DS_SCALE_ENTRIES

void scale(float scale, int64_t n, float* x) {
  DS_DISPATCH(scale_array)(scale, n, x);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
