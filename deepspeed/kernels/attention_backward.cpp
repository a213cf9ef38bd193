// Gradients of attention for one head of one sequence, in tiles of queries.
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention_backward.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/attention_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Scratch memory of the backward pass.
struct BackwardMemory {
  BackwardMemory(const Padding& p, int64_t dim)
      : carver(scratch_floats(static_cast<size_t>(
            3 * p.rows * p.head + 2 * dim * p.stride +
            kQueries * (2 * p.stride + 3 * p.head) + p.columns + kSlack))),
        keys(carver.take(p.rows * p.head)),
        dkeys(carver.take(p.rows * p.head)),
        dvalues(carver.take(p.rows * p.head)),
        keys_t(carver.take(dim * p.stride)),
        values_t(carver.take(dim * p.stride)),
        p(carver.take(kQueries * p.stride)),
        ds(carver.take(kQueries * p.stride)),
        queries(carver.take(kQueries * p.head)),
        dout(carver.take(kQueries * p.head)),
        dqueries(carver.take(kQueries * p.head)),
        random(reinterpret_cast<uint16_t*>(carver.take(p.columns))) {}

  Carver carver;
  float* keys; // [rows, head]
  float* dkeys; // [rows, head]
  float* dvalues; // [rows, head]
  float* keys_t; // [dim, stride]
  float* values_t; // [dim, stride]
  float* p; // [kQueries, stride]: scores, then probabilities after dropout
  float* ds; // [kQueries, stride]: dout v^T, then the gradient of the scores
  float* queries; // [kQueries, head], scaled
  float* dout; // [kQueries, head]
  float* dqueries; // [kQueries, head]
  uint16_t* random; // [columns]
};

// One row: p from scores to dropped probabilities, ds from the gradient of
// those to the gradient of the scores.
template <bool kDropout>
HWY_INLINE void softmax_backward_row(
    float* p,
    float* ds,
    int64_t columns,
    float lse,
    float delta,
    const Dropout& dropout,
    const uint16_t* random) {
  const VU limit = hn::Set(DU(), dropout.threshold);
  const V scale = set(dropout.scale);
  for (int64_t i = 0; i < columns; i += kLanes) {
    const V probability = exp(hn::Sub(load(p + i, Full()), set(lse)));
    V kept = probability;
    V gradient = load(ds + i, Full());
    if (kDropout) {
      const VU number = load_bits(random + i, Full());
      kept = drop(kept, number, limit, scale);
      gradient = drop(gradient, number, limit, scale);
    }
    store(kept, p + i, Full());
    store(hn::Mul(probability, hn::Sub(gradient, set(delta))), ds + i, Full());
  }
}

template <typename T>
HWY_INLINE float dot(const T* a, const T* b, int64_t count) {
  V sum = zero();
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    sum = hn::MulAdd(load(a + i, part), load(b + i, part), sum);
  });
  return sum_of_lanes(sum);
}

// The rows of p and ds for `count` queries from `first` on.
template <typename T>
HWY_INLINE void softmax_backward_tile(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    int64_t count,
    const Padding& padding,
    const BackwardMemory& memory) {
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t token = sequence.first + first + i;
    const int64_t at = token * hidden + head * dim;
    const float delta = dot(args.out + at, args.dout + at, dim);
    const float lse = args.lse[head * args.shape.tokens + token];
    float* p = memory.p + i * padding.stride;
    float* ds = memory.ds + i * padding.stride;
    if (args.dropout.active()) {
      const uint32_t key = dropout_key_row(head, first + i);
      dropout_row(
          args.dropout, sequence.visit, key, padding.columns, memory.random);
      softmax_backward_row<true>(
          p, ds, padding.columns, lse, delta, args.dropout, memory.random);
    } else {
      softmax_backward_row<false>(
          p, ds, padding.columns, lse, delta, args.dropout, nullptr);
    }
  }
}

// dqueries of a tile, and its part of dkeys and dvalues, from p and ds.
HWY_INLINE void tile_gradients(
    int64_t first,
    int64_t count,
    int64_t length,
    const Padding& padding,
    const BackwardMemory& memory) {
  const int64_t wide = padding.head;
  const int64_t stride = padding.stride;
  const Extent to_queries{length, wide, count};
  const bool add = first > 0;
  multiply(
      {memory.ds, stride, 1},
      {memory.keys, wide},
      {count, wide, length},
      memory.dqueries,
      wide,
      false);
  multiply(
      {memory.ds, 1, stride},
      {memory.queries, wide},
      to_queries,
      memory.dkeys,
      wide,
      add);
  multiply(
      {memory.p, 1, stride},
      {memory.dout, wide},
      to_queries,
      memory.dvalues,
      wide,
      add);
}

// One tile of queries: dq of its rows, and its part of dkeys and dvalues.
template <typename T>
HWY_INLINE void backward_tile(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    const Padding& padding,
    const BackwardMemory& memory) {
  const int64_t length = sequence.length;
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t wide = padding.head;
  const int64_t stride = padding.stride;
  const int64_t count = HWY_MIN(kQueries, length - first);
  const int64_t token = sequence.first + first;
  const int64_t q_at = token * 3 * hidden + head * dim;
  pack_rows(
      args.qkv + q_at,
      3 * hidden,
      count,
      dim,
      wide,
      args.shape.scale,
      memory.queries);
  const T* dout = args.dout + token * hidden + head * dim;
  pack_rows(dout, hidden, count, dim, wide, 1.0f, memory.dout);
  const Extent to_keys{count, padding.columns, dim};

  multiply(
      {memory.queries, wide, 1},
      {memory.keys_t, stride},
      to_keys,
      memory.p,
      stride,
      false);
  multiply(
      {memory.dout, wide, 1},
      {memory.values_t, stride},
      to_keys,
      memory.ds,
      stride,
      false);
  softmax_backward_tile(args, sequence, head, first, count, padding, memory);
  tile_gradients(first, count, length, padding, memory);
  for (int64_t i = 0; i < count; ++i) {
    unpack_row(
        memory.dqueries + i * wide,
        dim,
        args.shape.scale,
        args.dqkv + q_at + i * 3 * hidden);
  }
}

template <typename T>
HWY_INLINE void backward_head(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head) {
  const int64_t length = sequence.length;
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t stride = 3 * hidden;
  const Padding padding(length, dim);
  const BackwardMemory memory(padding, dim);
  const int64_t wide = padding.head;
  const int64_t at = sequence.first * stride + head * dim;
  const T* k = args.qkv + at + hidden;
  pack_rows(k + hidden, stride, length, dim, wide, 1.0f, memory.keys);
  transpose(memory.keys, wide, length, dim, padding, memory.values_t);
  pack_rows(k, stride, length, dim, wide, 1.0f, memory.keys);
  transpose(memory.keys, wide, length, dim, padding, memory.keys_t);
  for (int64_t first = 0; first < length; first += kQueries) {
    backward_tile(args, sequence, head, first, padding, memory);
  }
  T* dk = args.dqkv + at + hidden;
  for (int64_t i = 0; i < length; ++i) {
    unpack_row(memory.dkeys + i * wide, dim, 1.0f, dk + i * stride);
    unpack_row(memory.dvalues + i * wide, dim, 1.0f, dk + hidden + i * stride);
  }
}
void backward_float(
    const AttentionBackward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head(args, sequence, head);
}
void backward_bfloat16(
    const AttentionBackward<BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head(args, sequence, head);
}
void backward_float16(
    const AttentionBackward<Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head(args, sequence, head);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);
HWY_EXPORT(backward_float16);

template <>
void attention_backward(
    const AttentionBackward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(backward_float)(args, sequence, head);
}

template <>
void attention_backward(
    const AttentionBackward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(backward_bfloat16)(args, sequence, head);
}

template <>
void attention_backward(
    const AttentionBackward<base::Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(backward_float16)(args, sequence, head);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
