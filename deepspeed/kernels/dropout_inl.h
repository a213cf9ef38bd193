// Philox over many columns at once, and masks made from it; included again for
// each instruction set.
#if defined(DEEPSPEED_KERNELS_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_DROPOUT_INL_H_
#undef DEEPSPEED_KERNELS_DROPOUT_INL_H_
#else
#define DEEPSPEED_KERNELS_DROPOUT_INL_H_
#endif

#include "deepspeed/base/philox.h"
#include "deepspeed/kernels/dropout.h"
#include "deepspeed/kernels/float16_inl.h"

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

// kCounters blocks from `block` on. A 64-bit lane holds one counter: only the
// low half of each lane is meant, the multiplications ignore the upper half.
HWY_INLINE void philox_blocks(
    uint32_t row,
    uint32_t block,
    uint64_t visit,
    base::PhiloxKey key,
    uint16_t* out) {
  const D64 d;
  const VU multiplier0 = hn::Set(DU(), base::kPhiloxMultiplier0);
  const VU multiplier1 = hn::Set(DU(), base::kPhiloxMultiplier1);
  V64 c0 = hn::Set(d, row);
  V64 c1 = hn::Iota(d, block);
  V64 c2 = hn::Set(d, visit & 0xffffffff);
  V64 c3 = hn::Set(d, visit >> 32);
  for (int round = 0; round < base::kPhiloxRounds; ++round) {
    const V64 product0 = multiply_low_words(c0, multiplier0);
    const V64 product1 = multiply_low_words(c2, multiplier1);
    const V64 high0 = hn::ShiftRight<32>(product0);
    const V64 high1 = hn::ShiftRight<32>(product1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, key[0]));
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, key[1]));
    c1 = product1;
    c3 = product0;
    key[0] += base::kPhiloxWeyl0;
    key[1] += base::kPhiloxWeyl1;
  }
  const V64 low_half = hn::Set(d, 0xffffffff);
  const V64 words01 = hn::Or(hn::And(c0, low_half), hn::ShiftLeft<32>(c1));
  const V64 words23 = hn::Or(hn::And(c2, low_half), hn::ShiftLeft<32>(c3));
  hn::StoreInterleaved2(words01, words23, d, reinterpret_cast<uint64_t*>(out));
}
#endif

// The random numbers of columns [0, columns) of one row, see dropout.h.
HWY_INLINE void dropout_row(
    const Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    int64_t columns,
    uint16_t* out) {
  int64_t column = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kStep = kCounters * kBlockColumns;
  for (; column + kStep <= columns; column += kStep) {
    const auto block = static_cast<uint32_t>(column / kBlockColumns);
    philox_blocks(row, block, visit, dropout.key, out + column);
  }
  if (column < columns) {
    alignas(64) uint16_t rest[kStep];
    const auto block = static_cast<uint32_t>(column / kBlockColumns);
    philox_blocks(row, block, visit, dropout.key, rest);
    std::memcpy(out + column, rest, (columns - column) * sizeof(uint16_t));
  }
#else
  for (; column < columns; column += kBlockColumns) {
    uint16_t rest[kBlockColumns];
    const int64_t count =
        columns - column < kBlockColumns ? columns - column : kBlockColumns;
    philox_block(
        {row,
         static_cast<uint32_t>(column / kBlockColumns),
         static_cast<uint32_t>(visit),
         static_cast<uint32_t>(visit >> 32)},
        dropout.key,
        rest);
    std::memcpy(out + column, rest, count * sizeof(uint16_t));
  }
#endif
}

HWY_INLINE VU load_bits(const uint16_t* p, Full) {
  return hn::PromoteTo(DU(), hn::LoadU(D16(), p));
}
HWY_INLINE VU load_bits(const uint16_t* p, Part part) {
  uint16_t buffer[kLanes] = {};
  std::memcpy(buffer, p, part.count * sizeof(uint16_t));
  return load_bits(buffer, Full());
}

// scale * x where the random number is at least the threshold, otherwise zero;
// a dropped NaN or infinity is NaN, as x * 0 is in PyTorch.
HWY_INLINE V drop(V x, VU bits, VU threshold, V scale) {
  const auto stays = hn::RebindMask(D(), hn::Not(hn::Lt(bits, threshold)));
  return hn::Mul(x, hn::IfThenElseZero(stays, scale));
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
