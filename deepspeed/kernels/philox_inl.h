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

// The key of each round, in memory: there it can be an operand of all lanes.
struct PhiloxKeys {
  HWY_INLINE explicit PhiloxKeys(base::PhiloxKey key) {
    for (uint32_t round = 0; round < base::kPhiloxRounds; ++round) {
      words[round][0] = key[0] + round * base::kPhiloxWeyl0;
      words[round][1] = key[1] + round * base::kPhiloxWeyl1;
    }
  }

  uint64_t words[base::kPhiloxRounds][2];
};

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

// Counters that are drawn side by side: a round waits for the one before it.
constexpr int64_t kSideBySide = 2;
// Blocks that are drawn together.
constexpr int64_t kBlocks = kSideBySide * kCounters;

// The rounds from kFirst on.
template <int kFirst>
HWY_INLINE void philox_rounds(
    PhiloxLanes (&x)[kSideBySide],
    const PhiloxKeys& keys) {
  const D64 d;
  const VU multiplier0 = hn::Set(DU(), base::kPhiloxMultiplier0);
  const VU multiplier1 = hn::Set(DU(), base::kPhiloxMultiplier1);
#pragma GCC unroll 10
  for (uint32_t round = kFirst; round < base::kPhiloxRounds; ++round) {
    const V64 key0 = hn::Set(d, keys.words[round][0]);
    const V64 key1 = hn::Set(d, keys.words[round][1]);
#pragma GCC unroll 2
    for (PhiloxLanes& lanes : x) {
      const V64 product0 = multiply_low_words(lanes.c0, multiplier0);
      const V64 product1 = multiply_low_words(lanes.c2, multiplier1);
      const V64 high0 = hn::ShiftRight<32>(product0);
      const V64 high1 = hn::ShiftRight<32>(product1);
      lanes.c0 = hn::Xor3(high1, lanes.c1, key0);
      lanes.c2 = hn::Xor3(high0, lanes.c3, key1);
      lanes.c1 = product1;
      lanes.c3 = product0;
    }
  }
}

// The 32-bit words of `even` and `odd`, alternating.
HWY_INLINE V64 alternate(V64 even, V64 odd) {
  return hn::BitCast(
      D64(),
      hn::OddEven(
          hn::BitCast(DU(), hn::ShiftLeft<32>(odd)), hn::BitCast(DU(), even)));
}

// In such an order that the interleaved halves of two vectors, 128 bits wise,
// hold 0, 1, 2 and so on.
HWY_INLINE V64 order_of_blocks() {
  const V64 lane = hn::Iota(D64(), uint64_t{0});
  const V64 odd = hn::And(lane, hn::Set(D64(), 1));
  const V64 first_odd = hn::Set(D64(), kCounters / 2);
  return hn::Add(
      hn::ShiftRight<1>(lane),
      hn::And(hn::Sub(hn::Zero(D64()), odd), first_odd));
}

// kBlocks blocks from `block` on, of one row.
HWY_INLINE void philox_blocks(
    uint32_t row,
    uint32_t block,
    uint64_t visit,
    const PhiloxKeys& keys,
    uint16_t* out) {
  const D64 d;
  PhiloxLanes x[kSideBySide];
  for (int64_t i = 0; i < kSideBySide; ++i) {
    x[i] = {
        hn::Set(d, row),
        hn::Add(
            hn::Set(d, static_cast<uint64_t>(block + i * kCounters)),
            order_of_blocks()),
        hn::Set(d, visit & 0xffffffff),
        hn::Set(d, visit >> 32)};
  }
  philox_rounds<0>(x, keys);
  auto* to = reinterpret_cast<uint64_t*>(out);
  for (const PhiloxLanes& lanes : x) {
    const V64 words01 = alternate(lanes.c0, lanes.c1);
    const V64 words23 = alternate(lanes.c2, lanes.c3);
    hn::StoreU(hn::InterleaveLower(d, words01, words23), d, to);
    hn::StoreU(hn::InterleaveUpper(d, words01, words23), d, to + kCounters);
    to += 2 * kCounters;
  }
}
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
