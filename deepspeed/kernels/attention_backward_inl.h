// Gradients of attention for one head of one sequence, in tiles of queries;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_ATTENTION_BACKWARD_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_BACKWARD_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_BACKWARD_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_BACKWARD_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "deepspeed/kernels/attention_softmax_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

template <typename T>
HWY_INLINE float dot(const T* a, const T* b, int64_t count) {
  V sum = zero();
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    sum = hn::MulAdd(load(a + i, part), load(b + i, part), sum);
  });
  return sum_of_lanes(sum);
}

// Of `count` queries from `query` of the batch on; the last stands in for
// missing ones.
template <typename T>
HWY_INLINE void load_saved(
    const AttentionBackward<T>& args,
    int64_t head,
    int64_t query,
    int64_t count,
    Saved& saved) {
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  for (int64_t i = 0; i < round_up(count, kLanes); ++i) {
    const int64_t row = query + HWY_MIN(i, count - 1);
    const int64_t at = row * hidden + head * dim;
    saved.lse[i] = args.lse[head * args.shape.queries + row];
    saved.delta[i] = dot(args.out + at, args.dout + at, dim);
  }
}

// dqueries of a tile, and its part of dkeys and dvalues, from p and ds.
template <class Units>
HWY_INLINE void tile_gradients(
    int64_t first,
    int64_t count,
    const Sizes<Units>& sizes,
    const BackwardMemory<Units>& memory,
    const float* keys) {
  const int64_t columns = sizes.columns;
  const auto joined = [&](const QueryRows& rows) HWY_ATTR {
    return Right{
        Units::join(rows.packed, sizes.row, columns, count, rows.memory),
        columns};
  };
  multiply<Units>(
      {memory.ds_for_keys, 1, kQueries},
      {keys, columns},
      {count, columns, sizes.pairs},
      {memory.dqueries, columns});
  const int64_t row = kQueries / Units::kNumbers;
  const Extent extent{
      sizes.keys, columns, (count + Units::kNumbers - 1) / Units::kNumbers};
  multiply<Units>(
      {memory.ds, row, 1},
      joined(memory.queries),
      extent,
      {memory.dkeys, columns, first > 0});
  multiply<Units>(
      {memory.p, row, 1},
      joined(memory.dout),
      extent,
      {memory.dvalues, columns, first > 0});
}

// The scores and dp of a tile, with the columns of `count` queries.
template <class Units>
HWY_INLINE void tile_scores(
    int64_t count,
    int64_t length,
    const Sizes<Units>& sizes,
    const BackwardMemory<Units>& memory) {
  transpose(memory.queries.packed, sizes.row, count, memory.queries.transposed);
  transpose(memory.dout.packed, sizes.row, count, memory.dout.transposed);
  const Extent extent{length, round_up(count, kLanes), sizes.depth};
  const int64_t panel = sizes.row * kLanes;
  multiply<Units>(
      {memory.keys, sizes.row, 1},
      {memory.queries.transposed, kLanes, panel},
      extent,
      {memory.scores, kQueries});
  multiply<Units>(
      {memory.values, sizes.row, 1},
      {memory.dout.transposed, kLanes, panel},
      extent,
      {memory.dp, kQueries});
  fill_rows(
      memory.scores,
      length,
      sizes.keys,
      -std::numeric_limits<float>::infinity());
  fill_rows(memory.dp, length, sizes.keys, 0.0f);
}

// One tile of queries: dq of its rows, and its part of dkeys and dvalues.
template <class Units, typename T>
HWY_INLINE void backward_tile(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head,
    int64_t first,
    const Sizes<Units>& sizes,
    const BackwardMemory<Units>& memory,
    const float* keys) {
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t count = HWY_MIN(kQueries, sequence.queries - first);
  const int64_t query = sequence.first_query + first;
  const int64_t at = query * hidden + head * dim;
  const QueryRows& queries = memory.queries;
  Units::pack(args.q + at, hidden, count, dim, sizes.row, queries.packed);
  Units::pack(
      args.dout + at, hidden, count, dim, sizes.row, memory.dout.packed);
  Saved saved;
  load_saved(args, head, query, count, saved);
  tile_scores(count, sequence.length, sizes, memory);
  const float scale = args.shape.scale;
  for (int64_t i = 0; i < count; i += kLanes) {
    const Drop drop(args, sequence, head, first + i);
    if (args.dropout.active()) {
      softmax_backward<Units, true>(memory, i, sizes.keys, scale, saved, drop);
    } else {
      softmax_backward<Units, false>(memory, i, sizes.keys, scale, saved, drop);
    }
  }
  tile_gradients(first, count, sizes, memory, keys);
  for (int64_t i = 0; i < count; ++i) {
    unpack_row(
        memory.dqueries + i * sizes.columns,
        dim,
        scale,
        args.dq + at + i * hidden);
  }
}

template <class Units, typename T>
HWY_INLINE void backward_head(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head) {
  const int64_t length = sequence.length;
  const int64_t dim = args.shape.head_dim;
  const int64_t hidden = args.shape.heads * dim;
  const int64_t stride = 2 * hidden;
  const Sizes<Units> sizes(length, dim);
  const BackwardMemory<Units> memory(sizes);
  const int64_t at = sequence.first * stride + head * dim;
  const T* k = args.kv + at;
  Units::pack(k, stride, length, dim, sizes.row, memory.keys);
  Units::pack(k + hidden, stride, length, dim, sizes.row, memory.values);
  const float* keys = Units::join(
      memory.keys, sizes.row, sizes.columns, length, memory.joined_keys);
  T* dk = args.dkv + at;
  if (sequence.queries == 0) {
    std::fill_n(memory.dkeys, sizes.keys * sizes.columns, 0.0f);
    std::fill_n(memory.dvalues, sizes.keys * sizes.columns, 0.0f);
  }
  for (int64_t first = 0; first < sequence.queries; first += kQueries) {
    backward_tile<Units>(args, sequence, head, first, sizes, memory, keys);
  }
  for (int64_t i = 0; i < length; ++i) {
    const int64_t row = i * sizes.columns;
    unpack_row(memory.dkeys + row, dim, args.shape.scale, dk + i * stride);
    unpack_row(memory.dvalues + row, dim, 1.0f, dk + hidden + i * stride);
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
