// A small matrix product for matrices that fit the cache; included again for
// each instruction set.
//
// The matrices hold units of 32 bits along the depth, which `Units` says how to
// multiply: a unit is a float (FloatUnits), or two bfloat16 where there is an
// instruction for that (attention_bf16.cpp). Results are floats.
#if defined(DEEPSPEED_KERNELS_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_INL_H_
#endif

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// The registers hold kTileRows x 2 vectors of C. Callers pad the rows of C, and
// of A with any content, to a multiple of kTileRows.
constexpr int64_t kTileRows = HWY_TARGET == HWY_AVX3 ? 8 : 4;

// Unit (i, k) stands at data[i * row + k * depth].
struct Left {
  const float* data;
  int64_t row;
  int64_t depth;
};

// The vector of units (k, j) to (k, j + kLanes - 1) stands at
// data + k * depth + j / kLanes * vector.
struct Right {
  const float* data;
  int64_t depth;
  int64_t vector = kLanes;
};

struct Extent {
  int64_t rows; // of C
  int64_t columns; // of C; a multiple of kLanes
  int64_t depth; // in units
};

// Where C stands, and whether the product is added to what is there.
struct Result {
  float* data;
  int64_t row;
  bool add = false;
};

// One tile of C: kTileRows rows, kCount vectors.
template <class Units, int64_t kCount>
HWY_INLINE void multiply_tile(
    Left a,
    Right b,
    int64_t depth,
    float* HWY_RESTRICT c,
    int64_t c_row,
    bool add) {
  V sum[kTileRows][kCount];
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int64_t j = 0; j < kCount; ++j) {
      sum[i][j] = add ? load(c + i * c_row + j * kLanes, Full()) : zero();
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    V right[kCount];
#pragma GCC unroll 2
    for (int64_t j = 0; j < kCount; ++j) {
      right[j] = load(b.data + k * b.depth + j * b.vector, Full());
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      const V left = set(a.data[i * a.row + k * a.depth]);
#pragma GCC unroll 2
      for (int64_t j = 0; j < kCount; ++j) {
        sum[i][j] = Units::multiply_add(left, right[j], sum[i][j]);
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

template <class Units, int64_t kCount>
HWY_INLINE void multiply_columns(
    Left a,
    Right b,
    int64_t column,
    Extent extent,
    Result c) {
  for (int64_t row = 0; row < extent.rows; row += kTileRows) {
    multiply_tile<Units, kCount>(
        {a.data + row * a.row, a.row, a.depth},
        {b.data + column / kLanes * b.vector, b.depth, b.vector},
        extent.depth,
        c.data + row * c.row + column,
        c.row,
        c.add);
  }
}

// C = A B, or C += A B. The rows are rounded up to a multiple of kTileRows. The
// sums run over depth in order.
template <class Units>
static HWY_NOINLINE void multiply(Left a, Right b, Extent extent, Result c) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= extent.columns; column += 2 * kLanes) {
    multiply_columns<Units, 2>(a, b, column, extent, c);
  }
  if (column < extent.columns) {
    multiply_columns<Units, 1>(a, b, column, extent, c);
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
