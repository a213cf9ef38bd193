// The tile of a matrix product that stays in registers, and what its operands
// are packed into; included again for each instruction set.
//
// Panels hold units of 32 bits: an element widened to float, or, where the
// processor multiplies them, two bfloat16 that follow each other along the
// depth. So one layout and one way of packing serve both.
#if defined(DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#endif

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// A tile has kTileRows rows and kVectors vectors: as many as there are
// registers for, with some left for the operands. (One lane: 4 x 4.)
constexpr int64_t kTileRows = HWY_TARGET == HWY_AVX3 ? 12
    : HWY_TARGET == HWY_NEON                         ? 8
                                                     : 4;
constexpr int64_t kVectors = HWY_TARGET == HWY_AVX2 ? 3 : kLanes == 1 ? 4 : 2;
constexpr int64_t kTileColumns = kVectors * kLanes;

// A panel holds kWidth rows of the left operand or columns of the right one:
// unit k of line i at k * kWidth + i. This is the distance of two panels: with
// a gap, else all would begin in the same few sets of the cache.
template <int64_t kWidth>
HWY_INLINE int64_t panel_pitch(int64_t units) {
  return units * kWidth + 16;
}

// A unit is one element, widened.
template <typename Element>
struct Widened {
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
struct Pairs {
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

// One panel of each operand.
struct Panels {
  const float* left;
  const float* right;
  int64_t units;
};

// Memory that is asked for while a tile is multiplied, two places for each unit
// of its depth, `step` bytes apart: what is read next would else come late.
struct Ahead {
  const char* data;
  int64_t step;
};

// The first kRows rows of scale * left panel x right panel; out_row is the
// distance of rows of `out`. kStream: past the caches; `out` and its rows are
// aligned to vectors.
template <typename Unit, bool kStream, int64_t kRows>
HWY_NOINLINE void multiply_tile(
    Panels panels,
    float scale,
    Ahead ahead,
    float* HWY_RESTRICT out,
    int64_t out_row) {
  const float* HWY_RESTRICT left = panels.left;
  const float* HWY_RESTRICT right = panels.right;
  const int64_t units = panels.units;
  V sum[kRows][kVectors];
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      sum[i][j] = zero();
    }
  }
  for (int64_t k = 0; k < units; ++k) {
    __builtin_prefetch(ahead.data + 2 * k * ahead.step, 0, 2); // into L2
    __builtin_prefetch(ahead.data + (2 * k + 1) * ahead.step, 0, 2);
    V columns[kVectors];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      columns[j] = load(right + k * kTileColumns + j * kLanes, Full());
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < kRows; ++i) {
      const V row = set(left[k * kTileRows + i]);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kVectors; ++j) {
        sum[i][j] = multiply_add(Unit(), row, columns[j], sum[i][j]);
      }
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      const V x = hn::Mul(set(scale), sum[i][j]);
      float* to = out + i * out_row + j * kLanes;
      if constexpr (kStream) {
        hn::Stream(x, D(), to);
      } else {
        store(x, to, Full());
      }
    }
  }
}

// The same for at least the first `rows` rows: a panel may end with less than a
// tile's.
template <typename Unit, typename... Rest>
HWY_INLINE void multiply_rows(int64_t rows, Rest... rest) {
  constexpr int64_t kMiddle = HWY_MIN(kTileRows, 8);
  if (rows > kMiddle) {
    multiply_tile<Unit, false, kTileRows>(rest...);
  } else if (rows > 4) {
    multiply_tile<Unit, false, kMiddle>(rest...);
  } else {
    multiply_tile<Unit, false, 4>(rest...);
  }
}

#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
