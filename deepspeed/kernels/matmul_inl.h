// A small matrix product in floats, for matrices that fit the cache; included
// again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_INL_H_
#endif

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Callers pad the rows of C (and of A, with any content) to a multiple of this.
constexpr int64_t kRowPadding = 8;
// The registers hold kTileRows x 2 vectors of C.
constexpr int64_t kTileRows = HWY_TARGET == HWY_AVX3 ? 8 : 4;

// Element (i, j) stands at data[i * row + j * column].
struct Left {
  const float* data;
  int64_t row;
  int64_t column;
};

// Row-major.
struct Right {
  const float* data;
  int64_t row;
};

struct Extent {
  int64_t rows; // of C
  int64_t columns; // of C; a multiple of kLanes
  int64_t depth;
};

// One tile of C: kTileRows rows, kCount vectors.
template <int64_t kCount>
HWY_INLINE void multiply_tile(
    Left a,
    Right b,
    int64_t depth,
    float* HWY_RESTRICT c,
    int64_t c_row,
    bool accumulate) {
  V sum[kTileRows][kCount];
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int64_t j = 0; j < kCount; ++j) {
      sum[i][j] =
          accumulate ? load(c + i * c_row + j * kLanes, Full()) : zero();
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    V right[kCount];
#pragma GCC unroll 2
    for (int64_t j = 0; j < kCount; ++j) {
      right[j] = load(b.data + k * b.row + j * kLanes, Full());
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      const V left = set(a.data[i * a.row + k * a.column]);
#pragma GCC unroll 2
      for (int64_t j = 0; j < kCount; ++j) {
        sum[i][j] = hn::MulAdd(left, right[j], sum[i][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int64_t j = 0; j < kCount; ++j) {
      store(sum[i][j], c + i * c_row + j * kLanes, Full());
    }
  }
}

template <int64_t kCount>
HWY_INLINE void multiply_columns(
    Left a,
    Right b,
    int64_t column,
    Extent extent,
    float* c,
    int64_t c_row,
    bool accumulate) {
  for (int64_t row = 0; row < extent.rows; row += kTileRows) {
    multiply_tile<kCount>(
        {a.data + row * a.row, a.row, a.column},
        {b.data + column, b.row},
        extent.depth,
        c + row * c_row + column,
        c_row,
        accumulate);
  }
}

// C = A B, or C += A B. The rows are rounded up to a multiple of kTileRows. The
// sums run over depth in order.
static HWY_NOINLINE void multiply(
    Left a,
    Right b,
    Extent extent,
    float* c,
    int64_t c_row,
    bool accumulate) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= extent.columns; column += 2 * kLanes) {
    multiply_columns<2>(a, b, column, extent, c, c_row, accumulate);
  }
  for (; column < extent.columns; column += kLanes) {
    multiply_columns<1>(a, b, column, extent, c, c_row, accumulate);
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
