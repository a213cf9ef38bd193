// Packing for the products of attention; included again for each instruction
// set. `Units` of matmul_inl.h also says how numbers are packed for them.
#if defined(DEEPSPEED_KERNELS_ATTENTION_UNITS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_UNITS_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_UNITS_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_UNITS_INL_H_
#endif

#include "deepspeed/kernels/matmul_inl.h"
#include "deepspeed/kernels/philox_rows_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kQueries = 64; // of one tile: its scores stay in the L2 cache
constexpr int64_t kKeys = kBlockColumns; // whose dropout is drawn together
static_assert(kQueries % kTileRows == 0 && kKeys % kTileRows == 0);
static_assert(kQueries % kLanes == 0);

// Products of floats, as `Units` of matmul_inl.h and of attention.
struct FloatUnits {
  static constexpr int64_t kNumbers = 1; // in a unit

  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }

  // `count` rows of a head, each padded with zeros to `row` units. Row by row
  // in the inner loop: its loads have one stride, which the processor foresees.
  template <typename T>
  static HWY_INLINE void pack(
      const T* from,
      int64_t stride,
      int64_t count,
      int64_t head_dim,
      int64_t row,
      float* to) {
    for_vectors(head_dim, [&](int64_t c, auto part) HWY_ATTR {
      for (int64_t i = 0; i < count; ++i) {
        store(load(from + i * stride + c, part), to + i * row + c, Full());
      }
    });
  }

  // The right operand whose depth is the `count` packed rows; made in `memory`
  // where rows have to be joined.
  static HWY_INLINE const float* join(
      const float* rows,
      int64_t /*row*/,
      int64_t /*columns*/,
      int64_t /*count*/,
      float* /*memory*/) {
    return rows;
  }

  // The vectors of two keys, as left operand of products over the queries (rows
  // of kQueries numbers) and over the keys.
  static HWY_INLINE void store_for_queries(V first, V second, float* to) {
    store(first, to, Full());
    store(second, to + kQueries, Full());
  }
  static HWY_INLINE void store_for_keys(V first, V second, float* to) {
    store_for_queries(first, second, to);
  }
};

// Units (r, c) of kLanes rows and columns to (c, r).
HWY_INLINE void transpose_block(const float* const rows[kLanes], float* to) {
  if constexpr (kLanes == 1) {
    to[0] = rows[0][0];
  } else {
    // Element c of row r + k * kParts goes to place 4 c + k of part r, and from
    // there to kParts (4 c + k) + r.
    constexpr int64_t kParts = HWY_MAX(kLanes / 4, 1);
    alignas(64) float parts[kParts][4 * kLanes];
    const D d;
#pragma GCC unroll 4
    for (int64_t r = 0; r < kParts; ++r) {
      hn::StoreInterleaved4(
          load(rows[r], Full()),
          load(rows[(r + kParts) % kLanes], Full()),
          load(rows[(r + 2 * kParts) % kLanes], Full()),
          load(rows[(r + 3 * kParts) % kLanes], Full()),
          d,
          kParts == 1 ? to : parts[r]);
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4 * kLanes; i += kLanes) {
      const auto part = [&](int64_t r) HWY_ATTR {
        return load(parts[r % kParts] + i, Full());
      };
      if constexpr (kParts == 4) {
        hn::StoreInterleaved4(
            part(0), part(1), part(2), part(3), d, to + 4 * i);
      } else if constexpr (kParts == 2) {
        hn::StoreInterleaved2(part(0), part(1), d, to + 2 * i);
      }
    }
  }
}

// The right operand with a column for each of `count` packed rows: one panel
// of row * kLanes units for each kLanes of them. The last row stands in for
// missing ones, so that they bring no NaN of their own.
HWY_INLINE void transpose(
    const float* from,
    int64_t row,
    int64_t count,
    float* to) {
  for (int64_t first = 0; first < count; first += kLanes) {
    for (int64_t c = 0; c < row; c += kLanes) {
      const float* rows[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        rows[i] = from + HWY_MIN(first + i, count - 1) * row + c;
      }
      transpose_block(rows, to + first * row + c * kLanes);
    }
  }
}

// Sets the rows from `begin` to `end`, of kQueries floats.
HWY_INLINE void fill_rows(
    float* rows,
    int64_t begin,
    int64_t end,
    float value) {
  for (int64_t i = begin * kQueries; i < end * kQueries; i += kLanes) {
    store(set(value), rows + i, Full());
  }
}

// to = factor * from.
template <typename T>
HWY_INLINE void unpack_row(
    const float* from,
    int64_t count,
    float factor,
    T* to) {
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Mul(load(from + i, part), set(factor)), to + i, part);
  });
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
