// One RoBERTa encoder layer (post-LayerNorm) over packed sequences.
#include "deepspeed/bert/encoder_layer.h"

#include "deepspeed/bert/functional.h"
#include "deepspeed/bert/product.h"

namespace deepspeed::bert {
namespace {

// Shapes: t tokens, h hidden, f intermediate.
class EncoderLayer : public Block {
 public:
  explicit EncoderLayer(const LayerArguments& arguments)
      : arguments_(arguments) {}

  at::Tensor forward(const at::Tensor& input) override {
    input_ = input;
    attention_.qkv = query_key_value();
    attention_.batch = arguments_.batch.get();
    attention_.heads = arguments_.heads;
    attention_.dropout = arguments_.attention_dropout;
    attended_ = attention(attention_);

    NormInputs norm = attention_norm();
    norm.x = product(attended_.context, parameter(kAttentionOutputWeight).t());
    norm.residual = input_;
    middle_ = layer_norm(norm, saved_attention_norm_);

    activated_ = gelu_product(
        parameter(kIntermediateBias),
        middle_,
        parameter(kIntermediateWeight).t());
    norm = output_norm();
    norm.x = product(activated_.value, parameter(kOutputWeight).t());
    norm.residual = middle_;
    return layer_norm(norm, saved_output_norm_);
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    const at::Tensor dy = output_gradient.contiguous();
    layer_norm_parameter_gradients(
        dy,
        saved_output_norm_,
        gradients.take(kOutputNormWeight),
        gradients.take(kOutputNormBias));
    auto [dmiddle, dff] =
        layer_norm_backward(output_norm(), dy, saved_output_norm_);
    feed_forward_backward(dff, dmiddle, gradients);

    layer_norm_parameter_gradients(
        dmiddle,
        saved_attention_norm_,
        gradients.take(kAttentionNormWeight),
        gradients.take(kAttentionNormBias));
    auto [dinput, dprojected] =
        layer_norm_backward(attention_norm(), dmiddle, saved_attention_norm_);
    attention_half_backward(dprojected, dinput, gradients);
    return dinput;
  }

 private:
  const at::Tensor& parameter(size_t which) const {
    return arguments_.parameters->tensors[which];
  }

  // The LayerNorm behind the product with the bias `bias`: its weight and bias
  // are the next two parameters.
  NormInputs norm_after(LayerParameter bias, const kernels::Dropout& dropout)
      const {
    NormInputs inputs;
    inputs.bias = parameter(bias);
    inputs.gamma = parameter(bias + 1);
    inputs.beta = parameter(bias + 2);
    inputs.eps = arguments_.layer_norm_eps;
    inputs.dropout = dropout;
    inputs.tokens = arguments_.batch->token_keys();
    return inputs;
  }
  NormInputs attention_norm() const {
    return norm_after(
        kAttentionOutputBias, arguments_.attention_output_dropout);
  }
  NormInputs output_norm() const {
    return norm_after(kOutputBias, arguments_.output_dropout);
  }

  // [t, 3h]; each product goes into its columns.
  at::Tensor query_key_value() const {
    const int64_t hidden = input_.size(1);
    at::Tensor qkv = at::empty({input_.size(0), 3 * hidden}, input_.options());
    for (size_t i = 0; i < 3; ++i) {
      at::Tensor slice =
          qkv.narrow(1, static_cast<int64_t>(i) * hidden, hidden);
      bias_product_out(
          slice,
          parameter(kQueryBias + 2 * i),
          input_,
          parameter(kQueryWeight + 2 * i).t());
    }
    return qkv;
  }

  // Adds the gradient that comes through the feed-forward half to `dmiddle`.
  // Without dropout dff and dmiddle are one tensor: dff is used up first.
  void feed_forward_backward(
      const at::Tensor& dff,
      at::Tensor& dmiddle,
      flat::GradientOutputs& gradients) const {
    bias_gradient(dff, gradients.take(kOutputBias));
    weight_gradient(dff, activated_.value, gradients.take(kOutputWeight));
    const at::Tensor dactivated =
        gated_product(activated_.derivative, dff, parameter(kOutputWeight));
    bias_gradient(dactivated, gradients.take(kIntermediateBias));
    weight_gradient(dactivated, middle_, gradients.take(kIntermediateWeight));
    add_product_(dmiddle, dactivated, parameter(kIntermediateWeight));
  }

  // The same for the attention half and `dinput`.
  void attention_half_backward(
      const at::Tensor& dprojected,
      at::Tensor& dinput,
      flat::GradientOutputs& gradients) const {
    bias_gradient(dprojected, gradients.take(kAttentionOutputBias));
    weight_gradient(
        dprojected, attended_.context, gradients.take(kAttentionOutputWeight));
    const at::Tensor dqkv = attention_backward(
        attention_,
        attended_,
        product(dprojected, parameter(kAttentionOutputWeight)));
    const int64_t hidden = input_.size(1);
    for (size_t i = 0; i < 3; ++i) {
      const at::Tensor slice =
          dqkv.narrow(1, static_cast<int64_t>(i) * hidden, hidden);
      bias_gradient(slice, gradients.take(kQueryBias + 2 * i));
      weight_gradient(slice, input_, gradients.take(kQueryWeight + 2 * i));
      add_product_(dinput, slice, parameter(kQueryWeight + 2 * i));
    }
  }

  const LayerArguments arguments_;
  // Kept for backward.
  at::Tensor input_; // [t, h]
  AttentionInputs attention_;
  AttentionOutputs attended_;
  SavedNorm saved_attention_norm_;
  at::Tensor middle_; // [t, h], after the first LayerNorm
  Activation activated_; // [t, f], after GELU
  SavedNorm saved_output_norm_;
};

} // namespace

std::shared_ptr<Block> make_encoder_layer(const LayerArguments& arguments) {
  return std::make_shared<EncoderLayer>(arguments);
}

} // namespace deepspeed::bert
