// The operations over kernels/, threaded.
//
// Rows, columns and heads are independent, and sums over rows run in one thread
// per column.
#pragma once

#include "deepspeed/ops/operations.h"

namespace deepspeed::ops::cpu {

// x <- gelu(x + bias); returns the derivative at x + bias.
at::Tensor bias_gelu_(at::Tensor& x, const at::Tensor& bias);

// See ops::Operations.
class Operations final : public ops::Operations {
 public:
  at::Tensor layer_norm(const NormInputs& inputs, SavedNorm& saved)
      const override;
  NormGradients layer_norm_backward(
      flat::TaskList& tasks,
      const NormInputs& inputs,
      const at::Tensor& dy,
      const SavedNorm& saved) const override;
  void layer_norm_parameter_gradients(
      flat::TaskList& tasks,
      const at::Tensor& dy,
      const SavedNorm& saved,
      const GradientTarget& gamma,
      const GradientTarget& beta) const override;
  void gelu_backward_(at::Tensor& dy, const at::Tensor& derivative)
      const override;
  at::Tensor select_rows(const at::Tensor& x, std::span<const int32_t> rows)
      const override;
  at::Tensor spread_rows(
      const at::Tensor& values,
      std::span<const int32_t> rows,
      int64_t count) const override;
  at::Tensor product(
      flat::TaskList& tasks,
      const at::Tensor& a,
      const at::Tensor& b) const override;
  void bias_product_out(
      flat::TaskList& tasks,
      at::Tensor& out,
      const at::Tensor& bias,
      const at::Tensor& a,
      const at::Tensor& b) const override;
  Activation gelu_product(
      flat::TaskList& tasks,
      const at::Tensor& bias,
      const at::Tensor& a,
      const at::Tensor& b) const override;
  at::Tensor gated_product(
      flat::TaskList& tasks,
      const at::Tensor& gate,
      const at::Tensor& a,
      const at::Tensor& b) const override;
  void add_products_(
      flat::TaskList& tasks,
      at::Tensor& sum,
      const std::vector<Factors>& pairs) const override;
  void bias_gradient(
      flat::TaskList& tasks,
      const at::Tensor& dy,
      const GradientTarget& target) const override;
  void weight_gradient(
      flat::TaskList& tasks,
      const at::Tensor& dy,
      const at::Tensor& x,
      const GradientTarget& target) const override;
  AttentionOutputs attention(const AttentionInputs& inputs) const override;
  AttentionGradients attention_backward(
      const AttentionInputs& inputs,
      const AttentionOutputs& outputs,
      const at::Tensor& dcontext) const override;
  at::Tensor embedding(const EmbeddingInputs& inputs, SavedNorm& saved)
      const override;
  void embedding_backward(
      const EmbeddingInputs& inputs,
      const at::Tensor& dy,
      const SavedNorm& saved,
      const EmbeddingTargets& targets) const override;
  CrossEntropyResult cross_entropy(
      const at::Tensor& logits,
      const at::Tensor& bias,
      std::span<const int32_t> labels) const override;
  at::Tensor decoder_losses(const DecoderInputs& inputs, SavedDecoder& saved)
      const override;
  at::Tensor decoder_backward(
      const DecoderInputs& inputs,
      const SavedDecoder& saved,
      float scale,
      const DecoderTargets& targets) const override;
};

} // namespace deepspeed::ops::cpu
