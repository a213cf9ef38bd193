// Self-attention over packed sequences, one (sequence, head) at a time:
// out = dropout(softmax(scale * q k^T)) v, without any padding or mask. Each
// token has a key and a value; those whose output is wanted have a query.
//
// Backward recomputes the probabilities from q, k and the saved log-sum-exp
// (Dao et al., "FlashAttention", 2022, algorithm 4); nothing of size
// length x length is stored. T is float, base::BFloat16 or base::Float16;
// arithmetic in float, but for the products of bfloat16 where isa.h's
// multiplies_bfloat16() holds: there, what is multiplied with values, keys,
// queries or dout is rounded to bfloat16. Calls for different (sequence, head)
// pairs touch different memory and may run on any thread in any order with the
// same result. Scratch memory is per thread, grows to what the longest sequence
// needs, and is kept.
//
// Dropout of (query position i, key position j) of a head: row = head << 16 |
// i, column = j, see dropout.h; so a sequence has at most 65,536 tokens. What
// a query gets does not depend on which others there are.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::kernels {

struct AttentionShape {
  int64_t queries = 0; // of the packed batch: the row length of lse
  int64_t heads = 0;
  int64_t head_dim = 0; // hidden = heads * head_dim
  float scale = 0.0f; // positive, usually 1 / sqrt(head_dim)
};

// One sequence: tokens [first, first + length) of the packed batch, and queries
// [first_query, first_query + queries).
struct Sequence {
  int64_t first = 0;
  int64_t length = 0;
  uint64_t visit = 0; // for dropout
  int64_t first_query = 0;
  int64_t queries = 0; // at most length; may be 0
};

template <typename T>
struct AttentionForward {
  AttentionShape shape;
  Dropout dropout; // of the probabilities
  const uint32_t* positions = nullptr; // [queries], in their sequence, from 0
  const T* q = nullptr; // [queries, hidden], head h at h * head_dim
  const T* kv = nullptr; // [tokens, 2 * hidden]: k | v

  T* out = nullptr; // [queries, hidden]
  float* lse =
      nullptr; // [heads, queries], log-sum-exp of the scaled scores; or null
};

template <typename T>
void attention_forward(
    const AttentionForward<T>& args,
    const Sequence& sequence,
    int64_t head);

template <typename T>
struct AttentionBackward {
  AttentionShape shape;
  Dropout dropout;
  const uint32_t* positions = nullptr;
  const T* q = nullptr;
  const T* kv = nullptr;
  const T* out = nullptr; // of the forward pass
  const float* lse = nullptr; // of the forward pass
  const T* dout = nullptr; // [queries, hidden]

  T* dq = nullptr; // [queries, hidden], overwritten
  T* dkv = nullptr; // [tokens, 2 * hidden], overwritten
};

template <typename T>
void attention_backward(
    const AttentionBackward<T>& args,
    const Sequence& sequence,
    int64_t head);

} // namespace deepspeed::kernels
