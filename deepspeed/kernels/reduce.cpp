// Sums and maxima of several arrays, element by element.
#include "deepspeed/kernels/reduce.h"

#include <algorithm>

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/reduce.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"
#include "deepspeed/kernels/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

template <typename T>
HWY_INLINE void sum(std::span<const T* const> inputs, int64_t n, T* out) {
  const T* const first = inputs[0];
  // Two ranks, the usual case, without the inner loop.
  if (inputs.size() == 2) {
    const T* const second = inputs[1];
    for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
      store_exactly(
          hn::Add(load(first + i, part), load(second + i, part)),
          out + i,
          part);
    });
    return;
  }
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    V total = load(first + i, part);
    for (size_t k = 1; k < inputs.size(); ++k) {
      total = hn::Add(total, load(inputs[k] + i, part));
    }
    store_exactly(total, out + i, part);
  });
}

#define DS_SUM_KERNEL(suffix, T)                                           \
  void sum_##suffix(std::span<const T* const> inputs, int64_t n, T* out) { \
    sum(inputs, n, out);                                                   \
  }
DS_SUM_KERNEL(float, float)
DS_SUM_KERNEL(bfloat16, BFloat16)
DS_SUM_KERNEL(float16, Float16)
#undef DS_SUM_KERNEL

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
namespace {

// What a T is computed in.
template <typename T>
struct Wide {
  using type = T;
};
template <>
struct Wide<base::BFloat16> {
  using type = float;
};
template <>
struct Wide<base::Float16> {
  using type = float;
};

// For types that the vectors do not have: `combine` one after the other.
template <typename T, typename Combine>
void reduce_plainly(
    std::span<const T* const> inputs,
    int64_t n,
    T* out,
    Combine combine) {
  using W = typename Wide<T>::type;
  for (int64_t i = 0; i < n; ++i) {
    W total = static_cast<W>(inputs[0][i]);
    for (const T* const input : inputs.subspan(1)) {
      total = combine(total, static_cast<W>(input[i]));
    }
    out[i] = T(total);
  }
}

} // namespace

HWY_EXPORT(sum_float);
HWY_EXPORT(sum_bfloat16);
HWY_EXPORT(sum_float16);

template <>
void reduce_sum(std::span<const float* const> inputs, int64_t n, float* out) {
  DS_DISPATCH(sum_float)(inputs, n, out);
}
template <>
void reduce_sum(
    std::span<const base::BFloat16* const> inputs,
    int64_t n,
    base::BFloat16* out) {
  DS_DISPATCH(sum_bfloat16)(inputs, n, out);
}
template <>
void reduce_sum(
    std::span<const base::Float16* const> inputs,
    int64_t n,
    base::Float16* out) {
  DS_DISPATCH(sum_float16)(inputs, n, out);
}
template <>
void reduce_sum(std::span<const double* const> inputs, int64_t n, double* out) {
  reduce_plainly(inputs, n, out, [](double a, double b) { return a + b; });
}
template <>
void reduce_sum(
    std::span<const int64_t* const> inputs,
    int64_t n,
    int64_t* out) {
  reduce_plainly(inputs, n, out, [](int64_t a, int64_t b) {
    return static_cast<int64_t>(
        static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  });
}

template <>
void reduce_sum(
    std::span<const int32_t* const> inputs,
    int64_t n,
    int32_t* out) {
  reduce_plainly(inputs, n, out, [](int32_t a, int32_t b) {
    return static_cast<int32_t>(
        static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  });
}

template <typename T>
void reduce_max(std::span<const T* const> inputs, int64_t n, T* out) {
  reduce_plainly(
      inputs, n, out, [](auto a, auto b) { return b > a || b != b ? b : a; });
}
template void reduce_max(std::span<const float* const>, int64_t, float*);
template void reduce_max(std::span<const double* const>, int64_t, double*);
template void reduce_max(std::span<const int64_t* const>, int64_t, int64_t*);
template void reduce_max(std::span<const int32_t* const>, int64_t, int32_t*);
template void reduce_max(
    std::span<const base::BFloat16* const>,
    int64_t,
    base::BFloat16*);
template void reduce_max(
    std::span<const base::Float16* const>,
    int64_t,
    base::Float16*);

} // namespace deepspeed::kernels
#endif // HWY_ONCE
