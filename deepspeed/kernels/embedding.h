// RoBERTa's embedding: y = dropout(LayerNorm(word[id] + position[p] +
// type[0])).
//
// T is float, base::BFloat16 or base::Float16; arithmetic in float. The caller
// has checked that ids and positions lie inside the tables.
//
// Backward, in the terms of the other kernels: dropout_rows(dy), then
// layer_norm_backward (without dropout) gives d, layer_norm_backward_params,
// then embedding_backward(d).
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::kernels {

template <typename T>
struct EmbeddingForward {
  int64_t hidden = 0;
  float eps = 1e-5f;
  const int32_t* ids = nullptr; // [tokens], rows of `word`
  const int32_t* positions = nullptr; // [tokens], rows of `position`
  const T* word = nullptr; // [vocabulary, hidden]
  const T* position = nullptr; // [positions, hidden]
  const T* type = nullptr; // [1, hidden] or null
  const T* gamma = nullptr; // [hidden]
  const T* beta = nullptr; // [hidden]
  Dropout dropout; // after LayerNorm
  TokenKeys tokens; // for dropout only

  T* y = nullptr; // [tokens, hidden]
  T* normalized = nullptr; // [tokens, hidden] or null
  float* rstd = nullptr; // [tokens] or null
};

// Tokens [begin, end).
template <typename T>
void embedding_forward(
    const EmbeddingForward<T>& args,
    int64_t begin,
    int64_t end);

template <typename T>
struct EmbeddingBackward {
  int64_t tokens = 0;
  int64_t hidden = 0;
  const int32_t* ids = nullptr;
  const int32_t* positions = nullptr;
  // Rows that get no gradient (torch.nn.Embedding's padding_idx); -1 = none.
  int32_t padding_id = -1;
  int32_t padding_position = -1;
  const T* d = nullptr; // [tokens, hidden], gradient of the sum

  // Always added to: the caller has zeroed them, or they hold a gradient.
  float* dword = nullptr; // [vocabulary, hidden]
  float* dposition = nullptr; // [positions, hidden]
  float* dtype = nullptr; // [1, hidden] or null
};

// Columns [begin, end) of the three gradients, over all tokens in order.
template <typename T>
void embedding_backward(
    const EmbeddingBackward<T>& args,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::kernels
