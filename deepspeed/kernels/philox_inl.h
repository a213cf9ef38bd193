// Philox for many counters at once; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_PHILOX_INL_H_
#undef DEEPSPEED_KERNELS_PHILOX_INL_H_
#else
#define DEEPSPEED_KERNELS_PHILOX_INL_H_
#endif

#include "deepspeed/base/philox.h"
#include "deepspeed/kernels/dropout.h"
#include "deepspeed/kernels/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kBlockColumns = 8; // of one Philox call

// One block of eight columns.
HWY_INLINE void philox_block(
    base::PhiloxCounter counter,
    base::PhiloxKey key,
    uint16_t* out) {
  const base::PhiloxCounter words = base::philox(counter, key);
  for (int word = 0; word < 4; ++word) {
    out[2 * word] = static_cast<uint16_t>(words[word]);
    out[2 * word + 1] = static_cast<uint16_t>(words[word] >> 16);
  }
}

#if HWY_TARGET != HWY_SCALAR
using D64 = hn::ScalableTag<uint64_t>;
using V64 = hn::Vec<D64>;
constexpr int64_t kCounters = hn::MaxLanes(D64());

HWY_INLINE V64 multiply_low_words(V64 a, VU b) {
  return hn::MulEven(hn::BitCast(DU(), a), b);
}

// Four words of a counter for each 64-bit lane: only the low half of a lane is
// meant, the multiplications ignore the upper half.
struct PhiloxLanes {
  V64 c0;
  V64 c1;
  V64 c2;
  V64 c3;
};

// The rounds from kFirst on; `key` is that of round 0.
template <int kFirst>
HWY_INLINE void philox_rounds(PhiloxLanes& x, base::PhiloxKey key) {
  const D64 d;
  const VU multiplier0 = hn::Set(DU(), base::kPhiloxMultiplier0);
  const VU multiplier1 = hn::Set(DU(), base::kPhiloxMultiplier1);
#pragma GCC unroll 10
  for (uint32_t round = kFirst; round < base::kPhiloxRounds; ++round) {
    const V64 product0 = multiply_low_words(x.c0, multiplier0);
    const V64 product1 = multiply_low_words(x.c2, multiplier1);
    const V64 high0 = hn::ShiftRight<32>(product0);
    const V64 high1 = hn::ShiftRight<32>(product1);
    const V64 key0 = hn::Set(d, key[0] + round * base::kPhiloxWeyl0);
    const V64 key1 = hn::Set(d, key[1] + round * base::kPhiloxWeyl1);
    x.c0 = hn::Xor(hn::Xor(high1, x.c1), key0);
    x.c2 = hn::Xor(hn::Xor(high0, x.c3), key1);
    x.c1 = product1;
    x.c3 = product0;
  }
}

// kCounters blocks from `block` on, of one row.
HWY_INLINE void philox_blocks(
    uint32_t row,
    uint32_t block,
    uint64_t visit,
    base::PhiloxKey key,
    uint16_t* out) {
  const D64 d;
  PhiloxLanes x{
      hn::Set(d, row),
      hn::Iota(d, block),
      hn::Set(d, visit & 0xffffffff),
      hn::Set(d, visit >> 32)};
  philox_rounds<0>(x, key);
  const V64 low_half = hn::Set(d, 0xffffffff);
  const V64 words01 = hn::Or(hn::And(x.c0, low_half), hn::ShiftLeft<32>(x.c1));
  const V64 words23 = hn::Or(hn::And(x.c2, low_half), hn::ShiftLeft<32>(x.c3));
  hn::StoreInterleaved2(words01, words23, d, reinterpret_cast<uint64_t*>(out));
}

// The random numbers of kLanes rows from `row` on, a block of eight columns at
// a time: each lane has a row of its own.
class RowBlocks {
 public:
  HWY_INLINE RowBlocks(const Dropout& dropout, uint64_t visit, uint32_t row)
      : key_(dropout.key) {
    // What the rounds 0 and 1 do with a block is the same for all rows, and
    // what they do with a row the same for all blocks.
    const D64 d;
    const VU multiplier0 = hn::Set(DU(), base::kPhiloxMultiplier0);
    const VU multiplier1 = hn::Set(DU(), base::kPhiloxMultiplier1);
    const uint64_t product1 = (visit & 0xffffffff) * base::kPhiloxMultiplier1;
    block_key_ = static_cast<uint32_t>(product1 >> 32) ^ key_[0];
    for (uint64_t odd = 0; odd < 2; ++odd) {
      const V64 rows = hn::Add(
          hn::Set(d, row + odd), hn::ShiftLeft<1>(hn::Iota(d, uint64_t{0})));
      const V64 row_product = multiply_low_words(rows, multiplier0);
      const V64 c2 = hn::Xor(
          hn::ShiftRight<32>(row_product), hn::Set(d, (visit >> 32) ^ key_[1]));
      const V64 second_product = multiply_low_words(c2, multiplier1);
      PhiloxLanes& x = rows_[odd];
      x.c0 = hn::Xor(
          hn::ShiftRight<32>(second_product),
          hn::Set(
              d,
              static_cast<uint32_t>(product1) ^
                  (key_[0] + base::kPhiloxWeyl0)));
      x.c1 = second_product;
      x.c2 = hn::Xor(row_product, hn::Set(d, key_[1] + base::kPhiloxWeyl1));
    }
  }

  // Lane r of words[w]: the numbers of the columns 2 w (its low half) and
  // 2 w + 1 of the block, for row r.
  HWY_INLINE void draw(uint32_t block, VU words[4]) const {
    const D64 d;
    const uint64_t product =
        uint64_t{block ^ block_key_} * base::kPhiloxMultiplier0;
    PhiloxLanes x[2] = {rows_[0], rows_[1]};
#pragma GCC unroll 2
    for (PhiloxLanes& part : x) {
      part.c2 = hn::Xor(part.c2, hn::Set(d, product >> 32));
      part.c3 = hn::Set(d, product & 0xffffffff);
      philox_rounds<2>(part, key_);
    }
    words[0] = both(x[0].c0, x[1].c0);
    words[1] = both(x[0].c1, x[1].c1);
    words[2] = both(x[0].c2, x[1].c2);
    words[3] = both(x[0].c3, x[1].c3);
  }

 private:
  static HWY_INLINE VU both(V64 even, V64 odd) {
    return hn::OddEven(
        hn::BitCast(DU(), hn::ShiftLeft<32>(odd)), hn::BitCast(DU(), even));
  }

  base::PhiloxKey key_;
  uint32_t block_key_; // the low half of the product in round 1 comes from it
  PhiloxLanes
      rows_[2]; // after round 1, of the even and odd rows, without block
};
#else
class RowBlocks {
 public:
  HWY_INLINE RowBlocks(const Dropout& dropout, uint64_t visit, uint32_t row)
      : key_(dropout.key), visit_(visit), row_(row) {}

  void draw(uint32_t block, VU words[4]) const {
    const base::PhiloxCounter x = base::philox(
        {row_,
         block,
         static_cast<uint32_t>(visit_),
         static_cast<uint32_t>(visit_ >> 32)},
        key_);
    for (int i = 0; i < 4; ++i) {
      words[i] = hn::Set(DU(), x[i]);
    }
  }

 private:
  base::PhiloxKey key_;
  uint64_t visit_;
  uint32_t row_;
};
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
