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
    norm.x = run_now([&](flat::TaskList& tasks) {
      return product(
          tasks, attended_.context, parameter(kAttentionOutputWeight).t());
    });
    norm.residual = input_;
    middle_ = layer_norm(norm, saved_attention_norm_);

    activated_ = run_now([&](flat::TaskList& tasks) {
      return gelu_product(
          tasks,
          parameter(kIntermediateBias),
          middle_,
          parameter(kIntermediateWeight).t());
    });
    norm = output_norm();
    norm.x = run_now([&](flat::TaskList& tasks) {
      return product(tasks, activated_.value, parameter(kOutputWeight).t());
    });
    norm.residual = middle_;
    return layer_norm(norm, saved_output_norm_);
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    const at::Tensor dy = output_gradient.contiguous();
    auto [dmiddle, dff] =
        norm_backward(output_norm(), dy, saved_output_norm_, gradients);
    feed_forward_backward(dff, dmiddle, gradients);
    auto [dinput, dprojected] = norm_backward(
        attention_norm(), dmiddle, saved_attention_norm_, gradients);
    attention_half_backward(dprojected, dinput, gradients);
    return dinput;
  }

 private:
  const at::Tensor& parameter(size_t which) const {
    return arguments_.parameters->tensors[which];
  }

  // The LayerNorm behind the product with the bias `bias`: its weight and bias
  // are the next two parameters.
  struct Norm : NormInputs {
    size_t first = 0; // its weight
  };
  Norm norm_after(LayerParameter bias, const kernels::Dropout& dropout) const {
    Norm inputs;
    inputs.first = bias + 1;
    inputs.bias = parameter(bias);
    inputs.gamma = parameter(bias + 1);
    inputs.beta = parameter(bias + 2);
    inputs.eps = arguments_.layer_norm_eps;
    inputs.dropout = dropout;
    inputs.tokens = arguments_.batch->token_keys();
    return inputs;
  }
  Norm attention_norm() const {
    return norm_after(
        kAttentionOutputBias, arguments_.attention_output_dropout);
  }
  Norm output_norm() const {
    return norm_after(kOutputBias, arguments_.output_dropout);
  }

  static NormGradients norm_backward(
      const Norm& norm,
      const at::Tensor& dy,
      const SavedNorm& saved,
      flat::GradientOutputs& gradients) {
    return run_now([&](flat::TaskList& tasks) {
      layer_norm_parameter_gradients(
          tasks,
          dy,
          saved,
          gradients.take(norm.first),
          gradients.take(norm.first + 1));
      return layer_norm_backward(tasks, norm, dy, saved);
    });
  }

  // [t, 3h]; each product goes into its columns.
  at::Tensor query_key_value() const {
    const int64_t hidden = input_.size(1);
    at::Tensor qkv = at::empty({input_.size(0), 3 * hidden}, input_.options());
    flat::TaskList tasks;
    for (size_t i = 0; i < 3; ++i) {
      at::Tensor slice =
          qkv.narrow(1, static_cast<int64_t>(i) * hidden, hidden);
      bias_product_out(
          tasks,
          slice,
          parameter(kQueryBias + 2 * i),
          input_,
          parameter(kQueryWeight + 2 * i).t());
    }
    tasks.run();
    return qkv;
  }

  // Adds the gradient that comes through the feed-forward half to `dmiddle`.
  // Without dropout dff and dmiddle are one tensor: dff is used up first.
  void feed_forward_backward(
      const at::Tensor& dff,
      at::Tensor& dmiddle,
      flat::GradientOutputs& gradients) const {
    flat::TaskList tasks;
    weight_gradient(
        tasks, dff, activated_.value, gradients.take(kOutputWeight));
    const at::Tensor dactivated = gated_product(
        tasks, activated_.derivative, dff, parameter(kOutputWeight));
    bias_gradient(tasks, dff, gradients.take(kOutputBias));
    tasks.run();
    weight_gradient(
        tasks, dactivated, middle_, gradients.take(kIntermediateWeight));
    bias_gradient(tasks, dactivated, gradients.take(kIntermediateBias));
    add_products_(
        tasks, dmiddle, {{dactivated, parameter(kIntermediateWeight)}});
    tasks.run();
  }

  // The same for the attention half and `dinput`.
  void attention_half_backward(
      const at::Tensor& dprojected,
      at::Tensor& dinput,
      flat::GradientOutputs& gradients) const {
    flat::TaskList tasks;
    weight_gradient(
        tasks,
        dprojected,
        attended_.context,
        gradients.take(kAttentionOutputWeight));
    const at::Tensor dcontext =
        product(tasks, dprojected, parameter(kAttentionOutputWeight));
    bias_gradient(tasks, dprojected, gradients.take(kAttentionOutputBias));
    tasks.run();
    const at::Tensor dqkv = attention_backward(attention_, attended_, dcontext);
    const int64_t hidden = input_.size(1);
    std::vector<Factors> pairs;
    for (size_t i = 0; i < 3; ++i) {
      const at::Tensor slice =
          dqkv.narrow(1, static_cast<int64_t>(i) * hidden, hidden);
      weight_gradient(
          tasks, slice, input_, gradients.take(kQueryWeight + 2 * i));
      bias_gradient(tasks, slice, gradients.take(kQueryBias + 2 * i));
      pairs.push_back({slice, parameter(kQueryWeight + 2 * i)});
    }
    add_products_(tasks, dinput, pairs);
    tasks.run();
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
