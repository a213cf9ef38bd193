// What the operations take and give. Rows are tokens; all tensors are dense, in
// one of the compute dtypes fp32, bf16 and fp16 where nothing else is said.
// Spans are read in the call that they are given to.
#pragma once

#include <cstdint>
#include <span>

#include "deepspeed/flat/gradient_target.h"
#include "deepspeed/flat/row_consumer.h"
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::ops {

using flat::GradientTarget;

// y = LayerNorm(residual + dropout(x + bias)) * gamma + beta
struct NormInputs {
  at::Tensor x; // [rows, hidden]
  at::Tensor bias; // [hidden] or undefined
  at::Tensor residual; // [rows, hidden] or undefined
  at::Tensor gamma; // [hidden]
  at::Tensor beta; // [hidden]
  float eps = 1e-5f;
  kernels::Dropout dropout;
  kernels::TokenKeys tokens; // for dropout only
};

// What backward needs of it.
struct SavedNorm {
  at::Tensor normalized; // [rows, hidden]
  at::Tensor rstd; // [rows], fp32
};

struct NormGradients {
  at::Tensor residual; // [rows, hidden]
  at::Tensor x; // [rows, hidden]; the same tensor without dropout
};

// gelu(x), and the derivative of GELU there.
struct Activation {
  at::Tensor value;
  at::Tensor derivative;
};

// Of a product a b.
struct Factors {
  at::Tensor a; // [rows, inner]
  at::Tensor b; // [inner, columns], in the dtype of a
};

// Self-attention in packed sequences, for some of their tokens: the queries.
struct AttentionInputs {
  std::span<const kernels::Sequence> sequences;
  std::span<const uint32_t> positions; // [queries], in their sequences, from 0
  int64_t heads = 1;
  kernels::Dropout dropout; // of the probabilities
  at::Tensor q; // [queries, hidden]
  at::Tensor kv; // [tokens, 2 * hidden]
};
struct AttentionOutputs {
  at::Tensor context; // [queries, hidden]
  at::Tensor lse; // [heads, queries], fp32
};
struct AttentionGradients {
  at::Tensor q; // [queries, hidden]
  at::Tensor kv; // [tokens, 2 * hidden]
};

// dropout(LayerNorm(word + position + type))
struct EmbeddingInputs {
  std::span<const int32_t> ids; // [tokens], rows of `word`
  std::span<const int32_t> positions; // [tokens], rows of `position`
  at::Tensor word; // [vocabulary, hidden]
  at::Tensor position; // [positions, hidden]
  at::Tensor type; // [types, hidden]: row 0
  at::Tensor gamma; // [hidden]
  at::Tensor beta; // [hidden]
  float eps = 1e-5f;
  kernels::Dropout dropout;
  kernels::TokenKeys tokens; // for dropout only
};
struct EmbeddingTargets {
  GradientTarget word;
  std::span<const int32_t> word_rows; // [tokens], of `word`
  GradientTarget position, type, gamma, beta;
};

struct CrossEntropyResult {
  at::Tensor losses; // [rows], fp32
  at::Tensor predicted; // [rows], int32
};

// The decoder, whose matrix has a row for each word, with the softmax
// cross-entropy of its logits. Shapes: m rows, each predicting a word; h
// hidden, v vocabulary.
struct DecoderInputs {
  at::Tensor x; // [m, h], m > 0
  at::Tensor weight; // [v, h]
  at::Tensor bias; // [v]
  std::span<const int32_t> labels; // [m]
};

// What backward needs, see kernels/softmax_block.h.
struct SavedDecoder {
  at::Tensor exponentials; // [v, m padded], in the dtype of x
  at::Tensor factors; // [slices, m padded], fp32
};

// Where the gradients go.
struct DecoderTargets {
  GradientTarget weight;
  flat::RowConsumer* consumer = nullptr; // begun; takes it in place of `weight`
  GradientTarget bias;
};

} // namespace deepspeed::ops
