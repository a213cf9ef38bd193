// Attention of one head over one sequence, in tiles of queries.
#include <algorithm>
#include <cmath>
#include <limits>

#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention_forward.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/attention_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Replaces scores by exp(score - max), or zero where dropped; the columns past
// `length` become zero. Returns the log-sum-exp, and in `sum` the sum of the
// exponentials before dropout.
template <bool kDropout>
HWY_INLINE float softmax_row(
    float* scores,
    int64_t length,
    int64_t columns,
    uint32_t threshold,
    const uint16_t* random,
    float* sum) {
  std::fill(
      scores + length,
      scores + columns,
      -std::numeric_limits<float>::infinity());
  V most = set(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < columns; i += kLanes) {
    most = hn::Max(most, load(scores + i, Full()));
  }
  const float max = max_of_lanes(most);
  V total = zero();
  const VU limit = hn::Set(DU(), threshold);
  for (int64_t i = 0; i < columns; i += kLanes) {
    V e = exp(hn::Sub(load(scores + i, Full()), set(max)));
    total = hn::Add(total, e);
    if (kDropout) {
      const auto dropped = hn::Lt(load_bits(random + i, Full()), limit);
      e = hn::IfThenZeroElse(hn::RebindMask(D(), dropped), e);
    }
    store(e, scores + i, Full());
  }
  *sum = sum_of_lanes(total);
  return max + std::log(*sum);
}

// Scratch memory of the forward pass.
struct ForwardMemory {
  ForwardMemory(const Padding& p, int64_t dim)
      : carver(scratch_floats(static_cast<size_t>(
            p.rows * p.head + dim * p.stride +
            kQueries * (p.stride + 2 * p.head) + p.columns + kSlack))),
        values(carver.take(p.rows * p.head)),
        keys(carver.take(dim * p.stride)),
        scores(carver.take(kQueries * p.stride)),
        queries(carver.take(kQueries * p.head)),
        result(carver.take(kQueries * p.head)),
        random(reinterpret_cast<uint16_t*>(carver.take(p.columns))) {}

  Carver carver;
  float* values; // [rows, head]
  float* keys; // transposed: [dim, stride]
  float* scores; // [kQueries, stride]
  float* queries; // [kQueries, head]
  float* result; // [kQueries, head]
  uint16_t* random; // [columns]
};

// Softmax and dropout of `count` rows of scores, those of queries from `first`
// on. factor[i] turns row i of the product with the values into the output.
template <typename T>
HWY_INLINE void softmax_tile(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    int64_t count,
    const Padding& padding,
    const ForwardMemory& memory,
    float* factor) {
  float* lse = args.lse == nullptr
      ? nullptr
      : args.lse + head * args.shape.tokens + sequence.first + first;
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0.0f;
    float log_sum = 0.0f;
    float* row = memory.scores + i * padding.stride;
    if (args.dropout.active()) {
      const uint32_t key = dropout_key_row(head, first + i);
      dropout_row(
          args.dropout, sequence.visit, key, padding.columns, memory.random);
      log_sum = softmax_row<true>(
          row,
          sequence.length,
          padding.columns,
          args.dropout.threshold,
          memory.random,
          &sum);
    } else {
      log_sum = softmax_row<false>(
          row, sequence.length, padding.columns, 0, nullptr, &sum);
    }
    factor[i] = args.dropout.scale / sum;
    if (lse != nullptr) {
      lse[i] = log_sum;
    }
  }
}

template <typename T>
HWY_INLINE void forward_head(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head) {
  const int64_t length = sequence.length;
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t stride = 3 * hidden;
  const Padding padding(length, dim);
  const ForwardMemory memory(padding, dim);
  const int64_t wide = padding.head;
  const T* q = args.qkv + sequence.first * stride + head * dim;
  pack_rows(q + hidden, stride, length, dim, wide, 1.0f, memory.values);
  transpose(memory.values, wide, length, dim, padding, memory.keys);
  pack_rows(q + 2 * hidden, stride, length, dim, wide, 1.0f, memory.values);

  for (int64_t first = 0; first < length; first += kQueries) {
    const int64_t count = HWY_MIN(kQueries, length - first);
    pack_rows(
        q + first * stride,
        stride,
        count,
        dim,
        wide,
        args.shape.scale,
        memory.queries);
    multiply(
        {memory.queries, wide, 1},
        {memory.keys, padding.stride},
        {count, padding.columns, dim},
        memory.scores,
        padding.stride,
        false);
    float factor[kQueries];
    softmax_tile(args, sequence, head, first, count, padding, memory, factor);
    multiply(
        {memory.scores, padding.stride, 1},
        {memory.values, wide},
        {count, wide, length},
        memory.result,
        wide,
        false);
    T* out = args.out + (sequence.first + first) * hidden + head * dim;
    for (int64_t i = 0; i < count; ++i) {
      unpack_row(memory.result + i * wide, dim, factor[i], out + i * hidden);
    }
  }
}
void forward_float(
    const AttentionForward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head(args, sequence, head);
}
void forward_bfloat16(
    const AttentionForward<BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head(args, sequence, head);
}
void forward_float16(
    const AttentionForward<Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head(args, sequence, head);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);
HWY_EXPORT(forward_float16);

template <>
void attention_forward(
    const AttentionForward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(forward_float)(args, sequence, head);
}

template <>
void attention_forward(
    const AttentionForward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(forward_bfloat16)(args, sequence, head);
}

template <>
void attention_forward(
    const AttentionForward<base::Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(forward_float16)(args, sequence, head);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
