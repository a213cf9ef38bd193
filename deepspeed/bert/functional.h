// The kernels as functions on tensors, threaded: what the fast blocks are made
// of. CPU, fp32, bf16 and fp16. Rows are tokens; all tensors are dense.
//
// Those that take a TaskList add their loops to it: results are there when it
// has run, and their tensors must stay as they are until then.
//
// Results do not depend on the number of threads: rows, columns and heads are
// independent, and sums over rows run in one thread per column.
#pragma once

#include "deepspeed/bert/batch.h"
#include "deepspeed/flat/gradient_slot.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::bert {

using GradientTarget = flat::GradientOutputs::Target;

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

at::Tensor layer_norm(const NormInputs& inputs, SavedNorm& saved);

struct NormGradients {
  at::Tensor residual; // [rows, hidden]
  at::Tensor x; // [rows, hidden]; the same tensor without dropout
};
NormGradients layer_norm_backward(
    flat::TaskList& tasks,
    const NormInputs& inputs, // only gamma, dropout and tokens are read
    const at::Tensor& dy,
    const SavedNorm& saved);

void layer_norm_parameter_gradients(
    flat::TaskList& tasks,
    const at::Tensor& dy,
    const SavedNorm& saved,
    const GradientTarget& gamma,
    const GradientTarget& beta);

// x <- gelu(x + bias); returns the derivative at x + bias.
at::Tensor bias_gelu_(at::Tensor& x, const at::Tensor& bias);
// dy <- dy * derivative
void gelu_backward_(at::Tensor& dy, const at::Tensor& derivative);

// [rows, hidden]: these rows of x.
at::Tensor select_rows(const at::Tensor& x, const std::vector<int32_t>& rows);
// [count, hidden]: `values`, [rows, hidden], in these rows, all distinct, and
// zeros in the others.
at::Tensor spread_rows(
    const at::Tensor& values,
    const std::vector<int32_t>& rows,
    int64_t count);

// Column sums of dy, which may be a slice of columns.
void bias_gradient(
    flat::TaskList& tasks,
    const at::Tensor& dy,
    const GradientTarget& target);
// dy^T x, [out, in].
void weight_gradient(
    flat::TaskList& tasks,
    const at::Tensor& dy, // [rows, out]
    const at::Tensor& x, // [rows, in]
    const GradientTarget& target);

// Self-attention of all sequences of a batch, for some of its tokens.
struct AttentionInputs {
  const OutputTokens* outputs = nullptr;
  int64_t heads = 1;
  kernels::Dropout dropout; // of the probabilities
  at::Tensor q; // [outputs, hidden]
  at::Tensor kv; // [tokens, 2 * hidden]
};
struct AttentionOutputs {
  at::Tensor context; // [outputs, hidden]
  at::Tensor lse; // [heads, outputs], fp32
};
AttentionOutputs attention(const AttentionInputs& inputs);

struct AttentionGradients {
  at::Tensor q; // [outputs, hidden]
  at::Tensor kv; // [tokens, 2 * hidden]
};
AttentionGradients attention_backward(
    const AttentionInputs& inputs,
    const AttentionOutputs& outputs,
    const at::Tensor& dcontext);

// RoBERTa's embedding: dropout(LayerNorm(word + position + type)).
struct EmbeddingInputs {
  const Batch* batch = nullptr;
  at::Tensor word; // [vocabulary, hidden]
  at::Tensor position; // [positions, hidden]
  at::Tensor type; // [types, hidden]: row 0
  at::Tensor gamma; // [hidden]
  at::Tensor beta; // [hidden]
  float eps = 1e-5f;
  kernels::Dropout dropout;
};
at::Tensor embedding(const EmbeddingInputs& inputs, SavedNorm& saved);

struct EmbeddingTargets {
  GradientTarget word;
  const int32_t* word_rows = nullptr; // [t], of `word`
  GradientTarget position, type, gamma, beta;
};
void embedding_backward(
    const EmbeddingInputs& inputs,
    const at::Tensor& dy,
    const SavedNorm& saved,
    const EmbeddingTargets& targets);

// Cross-entropy of each row of logits + bias.
struct CrossEntropyResult {
  at::Tensor losses; // [rows], fp32
  at::Tensor predicted; // [rows], int32
};
CrossEntropyResult cross_entropy(
    const at::Tensor& logits, // [rows, vocabulary]
    const at::Tensor& bias, // [vocabulary]
    const std::vector<int32_t>& labels);

} // namespace deepspeed::bert
