// One RoBERTa encoder layer (post-LayerNorm) over packed sequences.
#include "deepspeed/bert/encoder_layer.h"

#include "deepspeed/ops/operations.h"

namespace deepspeed::bert {
namespace {

// Shapes: t tokens, m of them with an output, h hidden, f intermediate.
class EncoderLayer : public Block {
 public:
  explicit EncoderLayer(const LayerArguments& arguments)
      : arguments_(arguments), ops_(arguments.parameters->operations()) {}

  at::Tensor forward(const at::Tensor& input) override {
    input_ = input;
    selected_ = selects() ? ops_.select_rows(input, outputs().rows) : input;
    attention_.sequences = outputs().sequences;
    attention_.positions = outputs().positions;
    project();
    attention_.heads = arguments_.heads;
    attention_.dropout = arguments_.attention_dropout;
    attended_ = ops_.attention(attention_);

    ops::NormInputs norm = attention_norm();
    norm.x = ops::run_now([&](flat::TaskList& tasks) {
      return ops_.product(
          tasks, attended_.context, parameter(kAttentionOutputWeight).t());
    });
    norm.residual = selected_;
    middle_ = ops_.layer_norm(norm, saved_attention_norm_);

    activated_ = ops::run_now([&](flat::TaskList& tasks) {
      return ops_.gelu_product(
          tasks,
          parameter(kIntermediateBias),
          middle_,
          parameter(kIntermediateWeight).t());
    });
    norm = output_norm();
    norm.x = ops::run_now([&](flat::TaskList& tasks) {
      return ops_.product(
          tasks, activated_.value, parameter(kOutputWeight).t());
    });
    norm.residual = middle_;
    return ops_.layer_norm(norm, saved_output_norm_);
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    const at::Tensor dy = output_gradient.contiguous();
    auto [dmiddle, dff] =
        norm_backward(output_norm(), dy, saved_output_norm_, gradients);
    feed_forward_backward(dff, dmiddle, gradients);
    auto [dselected, dprojected] = norm_backward(
        attention_norm(), dmiddle, saved_attention_norm_, gradients);
    return attention_half_backward(dprojected, dselected, gradients);
  }

 private:
  const OutputTokens& outputs() const {
    return *arguments_.outputs;
  }
  // Whether there are tokens without an output.
  bool selects() const {
    return outputs().count() < arguments_.batch->tokens();
  }
  const at::Tensor& parameter(size_t which) const {
    return arguments_.parameters->tensors[which];
  }

  // The LayerNorm behind the product with the bias `bias`: its weight and bias
  // are the next two parameters.
  struct Norm : ops::NormInputs {
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
    inputs.tokens = outputs().keys();
    return inputs;
  }
  Norm attention_norm() const {
    return norm_after(
        kAttentionOutputBias, arguments_.attention_output_dropout);
  }
  Norm output_norm() const {
    return norm_after(kOutputBias, arguments_.output_dropout);
  }

  ops::NormGradients norm_backward(
      const Norm& norm,
      const at::Tensor& dy,
      const ops::SavedNorm& saved,
      flat::GradientOutputs& gradients) const {
    return ops::run_now([&](flat::TaskList& tasks) {
      ops_.layer_norm_parameter_gradients(
          tasks,
          dy,
          saved,
          gradients.take(norm.first),
          gradients.take(norm.first + 1));
      return ops_.layer_norm_backward(tasks, norm, dy, saved);
    });
  }

  // The columns of `kv` that are keys or values.
  static at::Tensor keys(const at::Tensor& kv) {
    return kv.narrow(1, 0, kv.size(1) / 2);
  }
  static at::Tensor values(const at::Tensor& kv) {
    return kv.narrow(1, kv.size(1) / 2, kv.size(1) / 2);
  }

  // Makes queries, keys and values.
  void project() {
    attention_.q = at::empty_like(selected_);
    attention_.kv =
        at::empty({input_.size(0), 2 * input_.size(1)}, input_.options());
    flat::TaskList tasks;
    const auto add =
        [&](at::Tensor out, const at::Tensor& x, LayerParameter weight) {
          ops_.bias_product_out(
              tasks, out, parameter(weight + 1), x, parameter(weight).t());
        };
    add(attention_.q, selected_, kQueryWeight);
    add(keys(attention_.kv), input_, kKeyWeight);
    add(values(attention_.kv), input_, kValueWeight);
    tasks.run();
  }

  // Adds the gradient that comes through the feed-forward half to `dmiddle`.
  // Without dropout dff and dmiddle are one tensor: dff is used up first.
  void feed_forward_backward(
      const at::Tensor& dff,
      at::Tensor& dmiddle,
      flat::GradientOutputs& gradients) const {
    flat::TaskList tasks;
    ops_.weight_gradient(
        tasks, dff, activated_.value, gradients.take(kOutputWeight));
    const at::Tensor dactivated = ops_.gated_product(
        tasks, activated_.derivative, dff, parameter(kOutputWeight));
    ops_.bias_gradient(tasks, dff, gradients.take(kOutputBias));
    tasks.run();
    ops_.weight_gradient(
        tasks, dactivated, middle_, gradients.take(kIntermediateWeight));
    ops_.bias_gradient(tasks, dactivated, gradients.take(kIntermediateBias));
    ops_.add_products_(
        tasks, dmiddle, {{dactivated, parameter(kIntermediateWeight)}});
    tasks.run();
  }

  // The same for the attention half and `dselected`; returns the gradient of
  // the input.
  at::Tensor attention_half_backward(
      const at::Tensor& dprojected,
      at::Tensor& dselected,
      flat::GradientOutputs& gradients) const {
    flat::TaskList tasks;
    ops_.weight_gradient(
        tasks,
        dprojected,
        attended_.context,
        gradients.take(kAttentionOutputWeight));
    const at::Tensor dcontext =
        ops_.product(tasks, dprojected, parameter(kAttentionOutputWeight));
    ops_.bias_gradient(tasks, dprojected, gradients.take(kAttentionOutputBias));
    tasks.run();
    const ops::AttentionGradients d =
        ops_.attention_backward(attention_, attended_, dcontext);
    const auto add = [&](const at::Tensor& dout,
                         const at::Tensor& x,
                         LayerParameter weight) {
      ops_.weight_gradient(tasks, dout, x, gradients.take(weight));
      ops_.bias_gradient(tasks, dout, gradients.take(weight + 1));
      return ops::Factors{dout, parameter(weight)};
    };
    const ops::Factors query = add(d.q, selected_, kQueryWeight);
    const ops::Factors key = add(keys(d.kv), input_, kKeyWeight);
    const ops::Factors value = add(values(d.kv), input_, kValueWeight);
    if (!selects()) {
      ops_.add_products_(tasks, dselected, {query, key, value});
      tasks.run();
      return dselected;
    }
    ops_.add_products_(tasks, dselected, {query});
    tasks.run();
    at::Tensor dinput =
        ops_.spread_rows(dselected, outputs().rows, input_.size(0));
    ops_.add_products_(tasks, dinput, {key, value});
    tasks.run();
    return dinput;
  }

  const LayerArguments arguments_;
  const ops::Operations& ops_;
  // Kept for backward.
  at::Tensor input_; // [t, h]
  at::Tensor selected_; // [m, h], its rows of the tokens with an output
  ops::AttentionInputs attention_;
  ops::AttentionOutputs attended_;
  ops::SavedNorm saved_attention_norm_;
  at::Tensor middle_; // [m, h], after the first LayerNorm
  ops::Activation activated_; // [m, f], after GELU
  ops::SavedNorm saved_output_norm_;
};

} // namespace

std::shared_ptr<Block> make_encoder_layer(const LayerArguments& arguments) {
  return std::make_shared<EncoderLayer>(arguments);
}

} // namespace deepspeed::bert
