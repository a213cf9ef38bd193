// Attention of one head over one sequence, in tiles of queries; included again
// for each instruction set.
#if defined(DEEPSPEED_KERNELS_ATTENTION_FORWARD_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_FORWARD_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_FORWARD_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_FORWARD_INL_H_
#endif

#include <cmath>
#include <limits>

#include "deepspeed/kernels/attention_softmax_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Softmax and dropout of the scores of `count` queries from `first` on.
// factor[i] turns row i of the product with the values into the output.
template <class Units, bool kDropout, typename T>
HWY_INLINE void softmax_tile(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    int64_t count,
    const ForwardMemory<Units>& memory,
    float* factor) {
  const int64_t keys = round_up(sequence.length, kKeys);
  float max[kQueries];
  for (int64_t i = 0; i < count; i += kLanes) {
    const SoftmaxSums sums = softmax<Units, kDropout>(
        memory.scores + i,
        keys,
        args.shape.scale,
        Drop(args, sequence, head, first + i),
        memory.p + i);
    store(sums.sum, factor + i, Full());
    store(sums.max, max + i, Full());
  }
  float* lse = args.lse == nullptr
      ? nullptr
      : args.lse + head * args.shape.queries + sequence.first_query + first;
  for (int64_t i = 0; i < count; ++i) {
    if (lse != nullptr) {
      lse[i] = max[i] / kLog2E + std::log(factor[i]);
    }
    factor[i] = 1.0f / factor[i];
  }
}

// The output of `count` queries from `first` on.
template <class Units, typename T>
HWY_INLINE void forward_tile(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    const Sizes<Units>& sizes,
    const ForwardMemory<Units>& memory,
    const float* values) {
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t count = HWY_MIN(kQueries, sequence.queries - first);
  const int64_t at = (sequence.first_query + first) * hidden + head * dim;
  Units::pack(args.q + at, hidden, count, dim, sizes.row, memory.queries);
  transpose(memory.queries, sizes.row, count, memory.queries_t);
  multiply<Units>(
      {memory.keys, sizes.row, 1},
      {memory.queries_t, kLanes, sizes.row * kLanes},
      {sequence.length, round_up(count, kLanes), sizes.depth},
      {memory.scores, kQueries});
  fill_rows(
      memory.scores,
      sequence.length,
      sizes.keys,
      -std::numeric_limits<float>::infinity());
  float factor[kQueries];
  if (args.dropout.active()) {
    softmax_tile<Units, true>(
        args, sequence, head, first, count, memory, factor);
  } else {
    softmax_tile<Units, false>(
        args, sequence, head, first, count, memory, factor);
  }
  multiply<Units>(
      {memory.p, 1, kQueries},
      {values, sizes.columns},
      {count, sizes.columns, sizes.pairs},
      {memory.result, sizes.columns});
  T* const out = args.out + at;
  for (int64_t i = 0; i < count; ++i) {
    unpack_row(
        memory.result + i * sizes.columns, dim, factor[i], out + i * hidden);
  }
}

template <class Units, typename T>
HWY_INLINE void forward_head(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head) {
  const int64_t length = sequence.length;
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const Sizes<Units> sizes(length, dim);
  const ForwardMemory<Units> memory(sizes);
  const T* k = args.kv + sequence.first * 2 * hidden + head * dim;
  Units::pack(k, 2 * hidden, length, dim, sizes.row, memory.keys);
  Units::pack(k + hidden, 2 * hidden, length, dim, sizes.row, memory.values);
  const float* values = Units::join(
      memory.values, sizes.row, sizes.columns, length, memory.joined_values);
  for (int64_t first = 0; first < sequence.queries; first += kQueries) {
    forward_tile<Units>(args, sequence, head, first, sizes, memory, values);
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
