// What the fast blocks are made of. The device of a model's parameters chooses
// the operations: another device is another class, not another set of blocks.
#pragma once

#include <span>
#include <vector>

#include "deepspeed/flat/parallel.h"
#include "deepspeed/ops/operands.h"

namespace deepspeed::ops {

// An operation that takes a TaskList may add its work to the list: results are
// there when that has run, and what they are made of must stay as it is until
// then. It may also be done at once. So an operand must not be the result of
// another operation on the same list.
//
// Results do not depend on the number of threads. Thread-safe, but for the
// tensors of a call.
class Operations {
 public:
  virtual ~Operations() = default;

  virtual at::Tensor layer_norm(const NormInputs& inputs, SavedNorm& saved)
      const = 0;
  virtual NormGradients layer_norm_backward(
      flat::TaskList& tasks,
      const NormInputs& inputs, // only gamma, dropout and tokens are read
      const at::Tensor& dy,
      const SavedNorm& saved) const = 0;
  virtual void layer_norm_parameter_gradients(
      flat::TaskList& tasks,
      const at::Tensor& dy,
      const SavedNorm& saved,
      const GradientTarget& gamma,
      const GradientTarget& beta) const = 0;

  // dy <- dy * derivative
  virtual void gelu_backward_(at::Tensor& dy, const at::Tensor& derivative)
      const = 0;

  // [rows, hidden]: these rows of x.
  virtual at::Tensor select_rows(
      const at::Tensor& x,
      std::span<const int32_t> rows) const = 0;
  // [count, hidden]: `values`, [rows, hidden], in these rows, all distinct, and
  // zeros in the others.
  virtual at::Tensor spread_rows(
      const at::Tensor& values,
      std::span<const int32_t> rows,
      int64_t count) const = 0;

  // a b, in the dtype of a.
  virtual at::Tensor product(
      flat::TaskList& tasks,
      const at::Tensor& a, // [rows, inner]
      const at::Tensor& b) const = 0; // [inner, columns], in the dtype of a
  // out = bias + a b; `out` may be a slice of columns.
  virtual void bias_product_out(
      flat::TaskList& tasks,
      at::Tensor& out,
      const at::Tensor& bias, // [columns]
      const at::Tensor& a,
      const at::Tensor& b) const = 0;
  // The activation of bias + a b.
  virtual Activation gelu_product(
      flat::TaskList& tasks,
      const at::Tensor& bias,
      const at::Tensor& a,
      const at::Tensor& b) const = 0;
  // gate * (a b), element by element: back through GELU.
  virtual at::Tensor gated_product(
      flat::TaskList& tasks,
      const at::Tensor& gate,
      const at::Tensor& a,
      const at::Tensor& b) const = 0;
  // sum += a b for all pairs, of equal shapes.
  virtual void add_products_(
      flat::TaskList& tasks,
      at::Tensor& sum,
      const std::vector<Factors>& pairs) const = 0;

  // Column sums of dy, which may be a slice of columns.
  virtual void bias_gradient(
      flat::TaskList& tasks,
      const at::Tensor& dy,
      const GradientTarget& target) const = 0;
  // dy^T x, [out, in].
  virtual void weight_gradient(
      flat::TaskList& tasks,
      const at::Tensor& dy, // [rows, out]
      const at::Tensor& x, // [rows, in]
      const GradientTarget& target) const = 0;

  virtual AttentionOutputs attention(const AttentionInputs& inputs) const = 0;
  virtual AttentionGradients attention_backward(
      const AttentionInputs& inputs,
      const AttentionOutputs& outputs,
      const at::Tensor& dcontext) const = 0;

  virtual at::Tensor embedding(const EmbeddingInputs& inputs, SavedNorm& saved)
      const = 0;
  virtual void embedding_backward(
      const EmbeddingInputs& inputs,
      const at::Tensor& dy,
      const SavedNorm& saved,
      const EmbeddingTargets& targets) const = 0;

  // Cross-entropy of each row of logits + bias.
  virtual CrossEntropyResult cross_entropy(
      const at::Tensor& logits, // [rows, vocabulary]
      const at::Tensor& bias, // [vocabulary]
      std::span<const int32_t> labels) const = 0;

  // Cross-entropy of each row of x weight^T + bias: [m], fp32.
  virtual at::Tensor decoder_losses(
      const DecoderInputs& inputs,
      SavedDecoder& saved) const = 0;
  // The gradients of scale * the sum of the losses; returns that of x. The same
  // whoever takes the rows.
  virtual at::Tensor decoder_backward(
      const DecoderInputs& inputs,
      const SavedDecoder& saved,
      float scale,
      const DecoderTargets& targets) const = 0;
};

// Those of a device; they live as long as the program. Throws
// base::Error(config) for a device that has none.
const Operations& operations_on(at::Device device);

// The result of add(tasks), made at once.
template <typename Add>
auto run_now(Add&& add) {
  flat::TaskList tasks;
  auto result = add(tasks);
  tasks.run();
  return result;
}

} // namespace deepspeed::ops
