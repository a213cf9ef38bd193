// Philox for many rows at once; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_PHILOX_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_PHILOX_ROWS_INL_H_
#undef DEEPSPEED_KERNELS_PHILOX_ROWS_INL_H_
#else
#define DEEPSPEED_KERNELS_PHILOX_ROWS_INL_H_
#endif

#include "deepspeed/kernels/philox_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// The random numbers of kLanes rows, a block of eight columns at a time: each
// lane has a row of its own.
class RowBlocks {
 public:
  // `rows`: kLanes of them, aligned like a vector.
  HWY_INLINE RowBlocks(
      const Dropout& dropout,
      uint64_t visit,
      const uint32_t* rows)
      : keys_(dropout.key) {
    // What the rounds 0 and 1 do with a block is the same for all rows, and
    // what they do with a row the same for all blocks.
    const D64 d;
    const VU multiplier0 = hn::Set(DU(), base::kPhiloxMultiplier0);
    const VU multiplier1 = hn::Set(DU(), base::kPhiloxMultiplier1);
    const uint64_t product1 = (visit & 0xffffffff) * base::kPhiloxMultiplier1;
    block_key_ = static_cast<uint32_t>(product1 >> 32) ^ dropout.key[0];
    const V64 row_pairs = hn::BitCast(d, hn::Load(DU(), rows));
    for (int odd = 0; odd < 2; ++odd) {
      const V64 row_product = multiply_low_words(
          odd == 0 ? row_pairs : hn::ShiftRight<32>(row_pairs), multiplier0);
      const V64 c2 = hn::Xor(
          hn::ShiftRight<32>(row_product),
          hn::Set(d, (visit >> 32) ^ keys_.words[0][1]));
      const V64 second_product = multiply_low_words(c2, multiplier1);
      PhiloxLanes& x = rows_[odd];
      x.c0 = hn::Xor(
          hn::ShiftRight<32>(second_product),
          hn::Set(d, static_cast<uint32_t>(product1 ^ keys_.words[1][0])));
      x.c1 = second_product;
      x.c2 = hn::Xor(row_product, hn::Set(d, keys_.words[1][1]));
    }
  }

  // Lane r of words[w]: the numbers of the columns 2 w (its low half) and
  // 2 w + 1 of the block, for row r.
  HWY_INLINE void draw(uint32_t block, VU words[4]) const {
    const D64 d;
    const uint64_t product =
        uint64_t{block ^ block_key_} * base::kPhiloxMultiplier0;
    PhiloxLanes x[kSideBySide] = {rows_[0], rows_[1]};
    for (PhiloxLanes& part : x) {
      part.c2 = hn::Xor(part.c2, hn::Set(d, product >> 32));
      part.c3 = hn::Set(d, product & 0xffffffff);
    }
    philox_rounds<2>(x, keys_);
    words[0] = hn::BitCast(DU(), alternate(x[0].c0, x[1].c0));
    words[1] = hn::BitCast(DU(), alternate(x[0].c1, x[1].c1));
    words[2] = hn::BitCast(DU(), alternate(x[0].c2, x[1].c2));
    words[3] = hn::BitCast(DU(), alternate(x[0].c3, x[1].c3));
  }

 private:
  PhiloxKeys keys_;
  uint32_t block_key_; // the low half of the product in round 1 comes from it
  // After round 1, of the even and odd rows, without block.
  PhiloxLanes rows_[kSideBySide];
};
#else
class RowBlocks {
 public:
  HWY_INLINE RowBlocks(
      const Dropout& dropout,
      uint64_t visit,
      const uint32_t* rows)
      : key_(dropout.key), visit_(visit), row_(rows[0]) {}

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
