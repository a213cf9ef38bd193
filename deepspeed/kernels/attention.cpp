// Attention of one head over one sequence, in tiles of queries.
#include "deepspeed/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/dropout_inl.h"
#include "deepspeed/kernels/matmul_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kSlack = 256; // floats, for the alignment of the parts
constexpr int64_t kQueries = 32; // of one tile: its scores stay in the L2 cache

HWY_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Sizes of the padded matrices in scratch memory, in floats.
struct Padding {
  Padding(int64_t length, int64_t head_dim)
      : columns(round_up(length, kLanes)),
        rows(round_up(columns, kRowPadding)),
        head(round_up(head_dim, kLanes)),
        // An odd number of vectors, else the rows of long sequences all fall
        // into the same few sets of the cache.
        stride(columns + (columns / kLanes % 2 == 0 ? kLanes : 0)) {}

  int64_t columns; // keys, as columns of the scores
  int64_t rows; // keys, as rows
  int64_t head;
  int64_t stride; // of matrices with a column for each key
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

// to[i] = factor * from[i] for `count` rows of `width`, the rest of [rows,
// padded width] is zero.
template <typename T>
HWY_INLINE void pack_rows(
    const T* from,
    int64_t from_stride,
    int64_t count,
    int64_t width,
    int64_t padded_width,
    float factor,
    float* to) {
  for (int64_t row = 0; row < count; ++row) {
    for_vectors(width, [&](int64_t i, auto part) HWY_ATTR {
      const V x = load(from + row * from_stride + i, part);
      store(hn::Mul(x, set(factor)), to + row * padded_width + i, Full());
    });
  }
}

// Row r of `from` becomes column r of `to`; the columns past `count` are zero.
HWY_INLINE void transpose(
    const float* from,
    int64_t from_stride,
    int64_t count,
    int64_t width,
    const Padding& padding,
    float* to) {
  using DI = hn::RebindToSigned<D>;
  const auto index = hn::Mul(
      hn::Iota(DI(), 0), hn::Set(DI(), static_cast<int32_t>(from_stride)));
  for (int64_t r = 0; r < padding.columns; r += kLanes) {
    const int64_t here = count - r;
    for (int64_t c = 0; c < width; ++c) {
      const float* at = from + r * from_stride + c;
      float* out = to + c * padding.stride + r;
      if (here >= kLanes) {
        store(hn::GatherIndex(D(), at, index), out, Full());
      } else {
        for (int64_t k = 0; k < kLanes; ++k) {
          out[k] = k < here ? at[k * from_stride] : 0.0f;
        }
      }
    }
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

HWY_INLINE uint32_t dropout_key_row(int64_t head, int64_t query) {
  return static_cast<uint32_t>(head) << 16 | static_cast<uint32_t>(query);
}

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
  const Extent from_keys{count, wide, length};
  const Extent to_queries{length, wide, count};
  const bool add = first > 0;

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
  multiply(
      {memory.ds, stride, 1},
      {memory.keys, wide},
      from_keys,
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

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);

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

} // namespace deepspeed::kernels
#endif // HWY_ONCE
