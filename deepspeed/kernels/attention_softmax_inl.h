// Softmax and dropout of a tile of scores, and their gradients; included again
// for each instruction set.
#if defined(DEEPSPEED_KERNELS_ATTENTION_SOFTMAX_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_SOFTMAX_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_SOFTMAX_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_SOFTMAX_INL_H_
#endif

#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/attention_memory_inl.h"
#include "deepspeed/kernels/exp_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// The random rows of a head for kLanes queries from `first` of a sequence on;
// its last query stands in for missing ones.
struct DropRows {
  HWY_INLINE DropRows(
      const uint32_t* positions,
      const Sequence& sequence,
      int64_t head,
      int64_t first) {
    const uint32_t* const own = positions + sequence.first_query;
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t query = HWY_MIN(first + i, sequence.queries - 1);
      rows[i] = static_cast<uint32_t>(head) << 16 | own[query];
    }
  }

  alignas(64) uint32_t rows[kLanes];
};

// Dropout of kLanes queries, kKeys keys at a time.
class Drop {
 public:
  // `args`: of either pass.
  template <class Args>
  HWY_INLINE Drop(
      const Args& args,
      const Sequence& sequence,
      int64_t head,
      int64_t first)
      : limit_((args.dropout.threshold << 16) - 1),
        scale_(args.dropout.scale),
        blocks_(
            args.dropout,
            sequence.visit,
            DropRows(args.positions, sequence, head, first).rows) {}

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

// Of kLanes queries.
struct SoftmaxSums {
  V max; // of the scaled scores, times log2(e)
  V sum; // of 2^(score * log2(e) - max), before dropout
};

// p = exp(score - max), times the factor of dropout.
template <class Units, bool kDropout>
HWY_INLINE SoftmaxSums softmax(
    const float* scores,
    int64_t keys,
    float scale,
    const Drop& drop,
    float* p) {
  V most[kKeys];
#pragma GCC unroll 8
  for (int64_t i = 0; i < kKeys; ++i) {
    most[i] = load(scores + i * kQueries, Full());
  }
  for (int64_t j = kKeys; j < keys; j += kKeys) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kKeys; ++i) {
      most[i] = hn::Max(most[i], load(scores + (j + i) * kQueries, Full()));
    }
  }
#pragma GCC unroll 3
  for (int64_t half = kKeys / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < half; ++i) {
      most[i] = hn::Max(most[i], most[i + half]);
    }
  }
  const V factor = set(scale * kLog2E);
  const V max = hn::Mul(most[0], factor);
  V sum = zero();
  for (int64_t j = 0; j < keys; j += kKeys) {
    V factors[kKeys];
    if (kDropout) {
      drop.factors(j, factors);
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < kKeys; i += 2) {
      V e[2];
#pragma GCC unroll 2
      for (int64_t k = 0; k < 2; ++k) {
        const V score = load(scores + (j + i + k) * kQueries, Full());
        e[k] = exp2(hn::MulSub(score, factor, max));
        sum = hn::Add(sum, e[k]);
        if (kDropout) {
          e[k] = hn::Mul(e[k], factors[i + k]);
        }
      }
      Units::store_for_keys(
          e[0], e[1], p + (j + i) / Units::kNumbers * kQueries);
    }
  }
  return {max, sum};
}

// For kLanes queries: p from scores to dropped probabilities, ds from dp.
template <class Units, bool kDropout>
HWY_INLINE void softmax_backward(
    const BackwardMemory<Units>& memory,
    int64_t first,
    int64_t keys,
    float scale,
    const Saved& saved,
    const Drop& drop) {
  const V factor = set(scale * kLog2E);
  const V lse = hn::Mul(load(saved.lse + first, Full()), set(kLog2E));
  const V delta = load(saved.delta + first, Full());
  for (int64_t j = 0; j < keys; j += kKeys) {
    const int64_t at = j * kQueries + first;
    V factors[kKeys];
    if (kDropout) {
      drop.factors(j, factors);
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < kKeys; i += 2) {
      V p[2];
      V ds[2];
#pragma GCC unroll 2
      for (int64_t k = 0; k < 2; ++k) {
        const V score = load(memory.scores + at + (i + k) * kQueries, Full());
        const V dp = load(memory.dp + at + (i + k) * kQueries, Full());
        p[k] = exp2(hn::MulSub(score, factor, lse));
        if (kDropout) {
          ds[k] = hn::Mul(p[k], hn::MulSub(dp, factors[i + k], delta));
          p[k] = hn::Mul(p[k], factors[i + k]);
        } else {
          ds[k] = hn::Mul(p[k], hn::Sub(dp, delta));
        }
      }
      const int64_t row = (j + i) / Units::kNumbers * kQueries;
      const int64_t column = first / Units::kNumbers;
      Units::store_for_queries(p[0], p[1], memory.p + row + column);
      Units::store_for_queries(ds[0], ds[1], memory.ds + row + column);
      if (Units::kNumbers > 1) {
        Units::store_for_keys(ds[0], ds[1], memory.ds_for_keys + row + first);
      }
    }
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
