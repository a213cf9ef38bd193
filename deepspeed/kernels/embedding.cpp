// The embedding's gather, normalization and dropout, and its scattered sums.
#include "deepspeed/kernels/embedding.h"

#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/embedding.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/dropout_inl.h"
#include "deepspeed/kernels/layer_norm_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// sum[i] = word + position + type of one token; returns its lane-wise sums.
template <typename T>
HWY_INLINE V
gather_row(const EmbeddingForward<T>& args, int64_t token, float* sum) {
  const T* word = args.word + args.ids[token] * args.hidden;
  const T* position = args.position + args.positions[token] * args.hidden;
  V total = zero();
  for_vectors(args.hidden, [&](int64_t i, auto part) HWY_ATTR {
    V z = load(word + i, part);
    if (args.type != nullptr) {
      z = hn::Add(z, load(args.type + i, part));
    }
    z = hn::Add(z, load(position + i, part));
    store(z, sum + i, part);
    total = hn::Add(total, z);
  });
  return total;
}

template <typename T>
HWY_INLINE void embedding_forward_range(
    const EmbeddingForward<T>& args,
    int64_t begin,
    int64_t end) {
  const int64_t hidden = args.hidden;
  float* sum = scratch_floats(static_cast<size_t>(2 * hidden));
  uint16_t* random = reinterpret_cast<uint16_t*>(sum + hidden);
  const bool dropping = args.dropout.active();
  const PhiloxKeys keys(args.dropout.key);
  const VU threshold = hn::Set(DU(), args.dropout.threshold);
  const V scale = set(args.dropout.scale);
  for (int64_t token = begin; token < end; ++token) {
    const V total = gather_row(args, token, sum);
    const RowStatistics s = row_statistics(sum, hidden, total, args.eps);
    if (args.rstd != nullptr) {
      args.rstd[token] = s.rstd;
    }
    if (dropping) {
      dropout_row(
          args.dropout,
          keys,
          args.tokens.visit[token],
          args.tokens.position[token],
          hidden,
          random);
    }
    const int64_t first = token * hidden;
    for_vectors(hidden, [&](int64_t i, auto part) HWY_ATTR {
      const V normalized =
          hn::Mul(hn::Sub(load(sum + i, part), set(s.mean)), set(s.rstd));
      if (args.normalized != nullptr) {
        store(normalized, args.normalized + first + i, part);
      }
      V y = hn::MulAdd(
          normalized, load(args.gamma + i, part), load(args.beta + i, part));
      if (dropping) {
        y = drop(y, load_bits(random + i, part), threshold, scale);
      }
      store(y, args.y + first + i, part);
    });
  }
}
DS_RANGE_KERNEL(embedding_forward, EmbeddingForward)

template <typename T>
HWY_INLINE void add_to(const T* x, int64_t count, float* out) {
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Add(load(out + i, part), load(x + i, part)), out + i, part);
  });
}

template <typename T>
HWY_INLINE void embedding_scatter_range(
    const EmbeddingBackward<T>& args,
    int64_t begin,
    int64_t end) {
  for (int64_t token = 0; token < args.tokens; ++token) {
    const T* d = args.d + token * args.hidden + begin;
    const int64_t id = args.ids[token];
    const int64_t position = args.positions[token];
    if (id != args.padding_id) {
      add_to(d, end - begin, args.dword + id * args.hidden + begin);
    }
    if (position != args.padding_position) {
      add_to(d, end - begin, args.dposition + position * args.hidden + begin);
    }
  }
}
DS_RANGE_KERNEL(embedding_scatter, EmbeddingBackward)

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
DS_RANGE_ENTRY(embedding_forward, EmbeddingForward)

template <typename T>
void embedding_scatter(
    const EmbeddingBackward<T>& args,
    int64_t begin,
    int64_t end);
DS_RANGE_ENTRY(embedding_scatter, EmbeddingBackward)

template <typename T>
void embedding_backward(
    const EmbeddingBackward<T>& args,
    int64_t begin,
    int64_t end) {
  embedding_scatter(args, begin, end);
  if (args.dtype != nullptr) {
    ColumnSum<T> sum;
    sum.rows = args.tokens;
    sum.stride = args.hidden;
    sum.x = args.d;
    sum.accumulate = true;
    sum.out = args.dtype;
    column_sum(sum, begin, end);
  }
}

template void embedding_backward(
    const EmbeddingBackward<float>&,
    int64_t,
    int64_t);
template void embedding_backward(
    const EmbeddingBackward<base::BFloat16>&,
    int64_t,
    int64_t);
template void embedding_backward(
    const EmbeddingBackward<base::Float16>&,
    int64_t,
    int64_t);

} // namespace deepspeed::kernels
#endif // HWY_ONCE
