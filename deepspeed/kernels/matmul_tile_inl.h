// The tile of a matrix product that stays in registers, and what its operands
// are packed into; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_TILE_INL_H_
#endif

#include <cstring>

#include "deepspeed/kernels/matmul_units_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// A panel holds kWidth rows of the left operand or columns of the right one:
// unit k of line i at k * kWidth + i. This is the distance of two panels: with
// a gap, else all would begin in the same few sets of the cache.
template <int64_t kWidth>
HWY_INLINE int64_t panel_pitch(int64_t units) {
  return units * kWidth + 16;
}

#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16") // see matmul_units_inl.h
#endif

// Lines of the left operand: unit k of line i at data[i * line + k * unit]. In
// a panel, or where the operand itself is laid out like that.
struct Left {
  const float* data;
  int64_t line;
  int64_t unit;
};

// A unit may be two elements of another type.
HWY_INLINE V broadcast(const float* unit) {
  float bits;
  std::memcpy(&bits, unit, sizeof(bits));
  return set(bits);
}

// The operands of a tile: lines, and one panel.
struct Panels {
  Left left;
  const float* right;
  int64_t units;
};

// Memory that is asked for while a tile is multiplied, two places for each unit
// of its depth, `step` bytes apart: what is read next would else come late.
struct Ahead {
  const char* data;
  int64_t step;
};

// Where a tile goes: rows of floats, `row` apart. kPastCaches: `to` and its
// rows are aligned to vectors.
template <bool kPastCaches>
struct Floats {
  float* to;
  int64_t row;

  HWY_INLINE void operator()(V x, int64_t i, int64_t j) const {
    if constexpr (kPastCaches) {
      hn::Stream(x, D(), to + i * row + j);
    } else {
      store(x, to + i * row + j, Full());
    }
  }
};

// The first kRows rows and kCount vectors of scale * left panel x right panel:
// finish(x, i, j) gets the vector at row i, column j.
template <
    typename Unit,
    int64_t kRows,
    int64_t kCount = kVectors,
    typename Finish>
HWY_NOINLINE void multiply_tile(
    const Panels& panels,
    float scale,
    const Ahead& ahead,
    const Finish& finish) {
  static_assert(kRows % 4 == 0);
  const float* left[kRows / 4];
  for (int64_t i = 0; i < kRows / 4; ++i) {
    left[i] = panels.left.data + 4 * i * panels.left.line;
  }
  const int64_t line = panels.left.line;
  const int64_t unit = panels.left.unit;
  const float* HWY_RESTRICT right = panels.right;
  const int64_t units = panels.units;
  V sum[kRows][kCount];
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kCount; ++j) {
      sum[i][j] = zero();
    }
  }
  for (int64_t k = 0; k < units; ++k) {
    __builtin_prefetch(ahead.data + 2 * k * ahead.step, 0, 2); // into L2
    __builtin_prefetch(ahead.data + (2 * k + 1) * ahead.step, 0, 2);
    V columns[kCount];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kCount; ++j) {
      columns[j] = load(right + k * kTileColumns + j * kLanes, Full());
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < kRows; ++i) {
      const V row = broadcast(left[i / 4] + i % 4 * line);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kCount; ++j) {
        sum[i][j] = multiply_add(Unit(), row, columns[j], sum[i][j]);
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < kRows / 4; ++i) {
      left[i] += unit;
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kCount; ++j) {
      finish(hn::Mul(set(scale), sum[i][j]), i, j * kLanes);
    }
  }
}

// The same for at least the first `rows` rows: a panel may end with less than a
// tile's.
template <typename Unit, int64_t kCount, typename... Rest>
HWY_INLINE void multiply_rows(int64_t rows, const Rest&... rest) {
  constexpr int64_t kMiddle = HWY_MIN(Unit::kRows, 8);
  if (rows > kMiddle) {
    multiply_tile<Unit, Unit::kRows, kCount>(rest...);
  } else if (rows > 4) {
    multiply_tile<Unit, kMiddle, kCount>(rest...);
  } else {
    multiply_tile<Unit, 4, kCount>(rest...);
  }
}

#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
