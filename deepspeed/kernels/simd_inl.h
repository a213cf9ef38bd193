// The vectors of floats that all kernels are written in, for one instruction
// set: included again for each (see dispatch.h), so its guard toggles.
//
// Arrays are of float or base::BFloat16 (of base::Float16 with float16_inl.h);
// a vector is always of float. Loops go
// through for_vectors, which calls its body with Full for whole vectors and
// with Part for the rest of a row; nothing is read or written past the end.
#if defined(DEEPSPEED_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_SIMD_INL_H_
#undef DEEPSPEED_KERNELS_SIMD_INL_H_
#else
#define DEEPSPEED_KERNELS_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <hwy/highway.h>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/kernels/isa.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using base::BFloat16;
using D = hn::ScalableTag<float>;
using DU = hn::RebindToUnsigned<D>;
using D16 = hn::Rebind<uint16_t, D>;
using V = hn::Vec<D>;
using VU = hn::Vec<DU>;

constexpr int64_t kLanes = hn::MaxLanes(D());

HWY_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// How much of a vector a memory operation touches.
struct Full {};
struct Part {
  size_t count;
};

HWY_INLINE V set(float x) {
  return hn::Set(D(), x);
}
HWY_INLINE V zero() {
  return hn::Zero(D());
}

HWY_INLINE V widen(hn::Vec<D16> bits) {
  return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
}

// Rounds to nearest even; every NaN becomes 0x7fc0, as in base::BFloat16.
HWY_INLINE hn::Vec<D16> narrow(V x) {
  const DU du;
  const VU word = hn::BitCast(du, x);
  const VU odd = hn::And(hn::ShiftRight<16>(word), hn::Set(du, 1));
  const VU rounded =
      hn::ShiftRight<16>(hn::Add(word, hn::Add(odd, hn::Set(du, 0x7fff))));
  const auto nan = hn::RebindMask(du, hn::IsNaN(x));
  return hn::TruncateTo(
      D16(), hn::IfThenElse(nan, hn::Set(du, 0x7fc0), rounded));
}

HWY_INLINE V load(const float* p, Full) {
  return hn::LoadU(D(), p);
}
HWY_INLINE V load(const BFloat16* p, Full) {
  return widen(hn::LoadU(D16(), reinterpret_cast<const uint16_t*>(p)));
}
// The lanes past the end are zero.
template <typename T>
HWY_INLINE V load(const T* p, Part part) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, p, part.count * sizeof(T));
  return load(buffer, Full());
}

HWY_INLINE void store(V x, float* p, Full) {
  hn::StoreU(x, D(), p);
}
// By the processor's own instruction where it has one: a denormal becomes zero
// then, and a NaN keeps some of its bits.
HWY_INLINE void store(V x, BFloat16* p, Full) {
#if HWY_TARGET == HWY_AVX3
  if (rounds_in_hardware) {
    // The intrinsic would need a target of its own.
    __m256i bits;
    asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(x.raw));
    std::memcpy(p, &bits, sizeof(bits));
    return;
  }
#endif
  hn::StoreU(narrow(x), D16(), reinterpret_cast<uint16_t*>(p));
}
template <typename T>
HWY_INLINE void store(V x, T* p, Part part) {
  T buffer[kLanes];
  store(x, buffer, Full());
  std::memcpy(p, buffer, part.count * sizeof(T));
}

// The same with the bits of base::BFloat16 on every processor: for weights, and
// for what ranks exchange.
template <typename T>
HWY_INLINE void store_exactly(V x, T* p, Full) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    hn::StoreU(narrow(x), D16(), reinterpret_cast<uint16_t*>(p));
  } else {
    store(x, p, Full());
  }
}
template <typename T>
HWY_INLINE void store_exactly(V x, T* p, Part part) {
  T buffer[kLanes];
  store_exactly(x, buffer, Full());
  std::memcpy(p, buffer, part.count * sizeof(T));
}

// x with the lanes past the end replaced.
HWY_INLINE V fill_rest(V x, float, Full) {
  return x;
}
HWY_INLINE V fill_rest(V x, float value, Part part) {
  return hn::IfThenElse(hn::FirstN(D(), part.count), x, set(value));
}

template <typename Body>
HWY_INLINE void for_vectors(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    body(i, Full());
  }
  if (i < count) {
    body(i, Part{static_cast<size_t>(count - i)});
  }
}

HWY_INLINE float sum_of_lanes(V x) {
  return hn::GetLane(hn::SumOfLanes(D(), x));
}
// Of finite lanes and infinities; a NaN may be lost.
HWY_INLINE float max_of_lanes(V x) {
  return hn::GetLane(hn::MaxOfLanes(D(), x));
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
