// What both passes of attention share: sizes, packing and scratch memory;
// included again for each instruction set.
//
// The scores stand transposed, [keys, kQueries]: a vector holds one key and the
// scores of kLanes queries. So the softmax needs no sums over lanes, dropout
// comes from the registers that it was drawn in, and keys and values are the
// left operand, which needs no transposition. Products are of `Units`
// (matmul_inl.h), which also says how numbers are packed for them.
#if defined(DEEPSPEED_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_INL_H_
#endif

#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dropout_inl.h"
#include "deepspeed/kernels/matmul_inl.h"
#include "deepspeed/kernels/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kQueries = 32; // of one tile: its scores stay in the L2 cache
constexpr int64_t kKeys = kBlockColumns; // whose dropout is drawn together
static_assert(kQueries % kTileRows == 0 && kKeys % kTileRows == 0);
static_assert(kQueries % kLanes == 0);

HWY_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Products of floats, as `Units` of matmul_inl.h and of attention.
struct FloatUnits {
  static constexpr int64_t kNumbers = 1; // in a unit

  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }

  // `count` numbers, and zeros up to a whole vector of units.
  template <typename T>
  static HWY_INLINE void pack(const T* from, int64_t count, float* to) {
    for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
      store(load(from + i, part), to + i, Full());
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

  // kKeys vectors of a column of scores, as left operand of products over the
  // queries (rows of kQueries numbers) and over the keys.
  static HWY_INLINE void store_for_queries(const V x[kKeys], float* to) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kKeys; ++i) {
      store(x[i], to + i * kQueries, Full());
    }
  }
  static HWY_INLINE void store_for_keys(const V x[kKeys], float* to) {
    store_for_queries(x, to);
  }
};

// The sizes of the packed matrices of one sequence and head.
template <class Units>
struct Sizes {
  HWY_INLINE Sizes(int64_t length, int64_t head_dim)
      : keys(round_up(length, kKeys)),
        depth((head_dim + Units::kNumbers - 1) / Units::kNumbers),
        row(round_up(depth, kLanes)),
        columns(round_up(head_dim, kLanes)),
        pairs((length + Units::kNumbers - 1) / Units::kNumbers) {}

  int64_t keys; // padded
  int64_t depth; // units of a head
  int64_t row; // of packed rows, in units
  int64_t columns; // of products with a column for each number of a head
  int64_t pairs; // units of the depth where that is the keys
};

// Hands out parts of one scratch buffer.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(int64_t count) {
    float* part = next_;
    next_ += round_up(count, 16);
    return part;
  }

 private:
  float* next_;
};
constexpr int64_t kSlack = 256; // floats, for the alignment of the parts

// `count` rows of a head, each padded to `row` units.
template <class Units, typename T>
HWY_INLINE void pack_rows(
    const T* from,
    int64_t stride,
    int64_t count,
    int64_t head_dim,
    int64_t row,
    float* to) {
  for (int64_t i = 0; i < count; ++i) {
    Units::pack(from + i * stride, head_dim, to + i * row);
  }
}

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

constexpr float kLog2E = 1.44269504f;

// 2^x within 3 units in the last place for x < 128 (or NaN); below -126 the
// result is less than 2^-125, below -127 it is 0. A minimax polynomial, between
// integers; it has half the cost of exp() in simd_inl.h.
HWY_INLINE V exp2(V x) {
  // In the low bits of `biased` stands round(x) + 127.
  const V magic = set(12582912.0f + 127.0f); // 1.5 * 2^23 + 127
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  x = hn::Max(set(-127.0f), x); // of a NaN and a number, it takes the second
#else
  x = hn::IfThenElse(hn::Lt(x, set(-127.0f)), set(-127.0f), x);
#endif
  const V biased = hn::Add(x, magic);
  const V r = hn::Sub(x, hn::Sub(biased, magic));
  V p = set(1.327647245e-3f);
  p = hn::MulAdd(p, r, set(9.675540961e-3f));
  p = hn::MulAdd(p, r, set(5.550713092e-2f));
  p = hn::MulAdd(p, r, set(2.402212024e-1f));
  p = hn::MulAdd(p, r, set(6.931469440e-1f));
  p = hn::MulAdd(p, r, set(1.0f));
  return hn::Mul(
      p, hn::BitCast(D(), hn::ShiftLeft<23>(hn::BitCast(DU(), biased))));
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

// Dropout of kKeys keys and kLanes queries, both counted from multiples.
class Drop {
 public:
  HWY_INLINE Drop(
      const Dropout& dropout,
      const Sequence& sequence,
      int64_t head,
      int64_t query)
      : limit_((dropout.threshold << 16) - 1),
        scale_(dropout.scale),
        blocks_(
            dropout,
            sequence.visit,
            static_cast<uint32_t>(head) << 16 | static_cast<uint32_t>(query)) {}

  // The factor of each probability: zero, or the scale.
  HWY_INLINE void factors(int64_t key, V out[kKeys]) const {
    VU words[4];
    blocks_.draw(static_cast<uint32_t>(key / kKeys), words);
    const VU limit = hn::Set(DU(), limit_);
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) {
      out[2 * i] = factor(hn::Gt(hn::ShiftLeft<16>(words[i]), limit));
      out[2 * i + 1] = factor(hn::Gt(words[i], limit));
    }
  }

 private:
  template <class M>
  HWY_INLINE V factor(M stays) const {
    return hn::IfThenElseZero(hn::RebindMask(D(), stays), set(scale_));
  }

  // A number of 16 bits in the upper half of a word, with anything below it, is
  // at least the threshold if and only if the word is above this.
  uint32_t limit_;
  float scale_;
  RowBlocks blocks_;
};

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
