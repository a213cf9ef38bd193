// What matrix products multiply: units of 32 bits, an element widened to float,
// or, where the processor multiplies them, two bfloat16 that follow each other
// along the depth; and the size of the tile that they are summed in. Included
// again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_UNITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_UNITS_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_UNITS_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_UNITS_INL_H_
#endif

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// A tile of the result has kRows rows and kVectors vectors: as many as there
// are registers for, with some left for the operands. (One lane: 4 x 4.)
constexpr int64_t kVectors = HWY_TARGET == HWY_AVX2 ? 3 : kLanes == 1 ? 4 : 2;
constexpr int64_t kTileColumns = kVectors * kLanes;
struct VectorTile {
  static constexpr int64_t kRows = HWY_TARGET == HWY_AVX3 ? 12
      : HWY_TARGET == HWY_NEON                            ? 8
                                                          : 4;
  // The depth is a multiple of so many units; zeros fill the rest.
  static constexpr int64_t kDepth = 1;
  struct Scope {}; // around the products of a thread
};

// A unit is one element, widened.
template <typename Element>
struct Widened : VectorTile {
  using T = Element;
  static constexpr int64_t kElements = 1;

  // Units that follow each other along the depth.
  static HWY_INLINE V along(const T* p) {
    return load(p, Full());
  }
  // Units beside each other, one for each element from p on.
  template <typename Size>
  static HWY_INLINE V across(const T* p, const T* /*next*/, Size size) {
    return load(p, size);
  }
  static HWY_INLINE float one(const T* p, const T* /*next*/) {
    return static_cast<float>(*p);
  }
};

// A unit is two bfloat16: the element and the next one along the depth, which
// is zero (`next` null) past the end.
struct Pairs : VectorTile {
  using T = BFloat16;
  static constexpr int64_t kElements = 2;

  static HWY_INLINE V along(const T* p) {
    return load(reinterpret_cast<const float*>(p), Full());
  }
  template <typename Size>
  static HWY_INLINE V across(const T* p, const T* next, Size size) {
    const V high = next == nullptr ? zero() : load(next, size);
    return hn::BitCast(D(), hn::Or(hn::BitCast(DU(), high), bits(p, size)));
  }
  static HWY_INLINE VU bits(const T* p, Full) {
    const auto* from = reinterpret_cast<const uint16_t*>(p);
    return hn::PromoteTo(DU(), hn::LoadU(D16(), from));
  }
  static HWY_INLINE VU bits(const T* p, Part part) {
    T buffer[kLanes] = {};
    std::memcpy(buffer, p, part.count * sizeof(T));
    return bits(buffer, Full());
  }
  static HWY_INLINE float one(const T* p, const T* next) {
    T pair[2] = {*p, next == nullptr ? T(0.0f) : *next};
    float unit;
    std::memcpy(&unit, pair, sizeof(unit));
    return unit;
  }
};

// GCC makes bfloat16 instructions of these functions only where it is told to,
// by the intrinsic: the others run without them.
#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif

template <typename Element>
HWY_INLINE V multiply_add(Widened<Element>, V a, V b, V sum) {
  return hn::MulAdd(a, b, sum);
}
#if HWY_TARGET == HWY_AVX3
HWY_INLINE V multiply_add(Pairs, V a, V b, V sum) {
  return V{_mm512_dpbf16_ps(
      sum.raw,
      reinterpret_cast<__m512bh>(a.raw),
      reinterpret_cast<__m512bh>(b.raw))};
}
#endif

#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
