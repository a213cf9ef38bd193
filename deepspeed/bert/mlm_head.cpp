// The masked-language-model head and its loss as one block.
#include "deepspeed/bert/mlm_head.h"

#include <numeric>

#include "deepspeed/ops/operations.h"

namespace deepspeed::bert {
namespace {

// Shapes: m masked tokens, h hidden, v vocabulary.
class MlmHead : public Block {
 public:
  explicit MlmHead(const HeadArguments& arguments)
      : arguments_(arguments), ops_(arguments.parameters->operations()) {}

  at::Tensor forward(const at::Tensor& input) override {
    input_ = input;
    if (arguments_.batch->masked() == 0) {
      return at::zeros({}, input.options().dtype(at::kFloat));
    }
    normed_ = normalized(input);
    // Their mean by hand: the other threads wait, and libtorch's code for it is
    // not in the caches.
    const at::Tensor losses = ops_.decoder_losses(decoder(), saved_decoder_);
    const float* const first = losses.const_data_ptr<float>();
    const double sum = std::accumulate(first, first + losses.numel(), 0.0);
    at::Tensor mean = at::empty({}, losses.options());
    *mean.data_ptr<float>() =
        static_cast<float>(sum / static_cast<double>(losses.numel()));
    return mean;
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    const int64_t masked = arguments_.batch->masked();
    if (masked == 0) {
      return at::zeros_like(input_);
    }
    const float scale =
        output_gradient.item<float>() / static_cast<float>(masked);
    ops::DecoderTargets targets;
    targets.bias = gradients.take(kDecoderBias);
    targets.consumer = gradients.consumer(kDecoderWeight);
    targets.weight = gradients.take(kDecoderWeight);
    if (targets.consumer != nullptr) {
      targets.consumer->begin(arguments_.batch->words());
    }
    const at::Tensor dnormed =
        ops_.decoder_backward(decoder(), saved_decoder_, scale, targets);
    gradients.dense_is_complete(kDecoderWeight);
    saved_decoder_ = {};

    flat::TaskList tasks;
    ops_.layer_norm_parameter_gradients(
        tasks,
        dnormed,
        saved_norm_,
        gradients.take(kHeadNormWeight),
        gradients.take(kHeadNormBias));
    at::Tensor ddense =
        ops_.layer_norm_backward(tasks, norm(), dnormed, saved_norm_).x;
    tasks.run();
    ops_.gelu_backward_(ddense, gelu_derivative_);
    ops_.weight_gradient(tasks, ddense, input_, gradients.take(kDenseWeight));
    at::Tensor dinput = ops_.product(tasks, ddense, parameter(kDenseWeight));
    ops_.bias_gradient(tasks, ddense, gradients.take(kDenseBias));
    tasks.run();
    return dinput;
  }

  // [m, v], without the bias.
  at::Tensor logits(const at::Tensor& input) {
    const at::Tensor x = normalized(input);
    return ops::run_now([&](flat::TaskList& tasks) {
      return ops_.product(tasks, x, parameter(kDecoderWeight).t());
    });
  }

 private:
  // [m, h], what the decoder reads.
  at::Tensor normalized(const at::Tensor& input) {
    const ops::Activation dense = ops::run_now([&](flat::TaskList& tasks) {
      return ops_.gelu_product(
          tasks, parameter(kDenseBias), input, parameter(kDenseWeight).t());
    });
    gelu_derivative_ = dense.derivative;
    ops::NormInputs inputs = norm();
    inputs.x = dense.value;
    return ops_.layer_norm(inputs, saved_norm_);
  }

  ops::DecoderInputs decoder() const {
    return {
        normed_,
        parameter(kDecoderWeight),
        parameter(kDecoderBias),
        arguments_.batch->packed().labels};
  }

  const at::Tensor& parameter(HeadParameter which) const {
    return arguments_.parameters->tensors[which];
  }

  ops::NormInputs norm() const {
    ops::NormInputs inputs;
    inputs.gamma = parameter(kHeadNormWeight);
    inputs.beta = parameter(kHeadNormBias);
    inputs.eps = arguments_.layer_norm_eps;
    return inputs;
  }

  const HeadArguments arguments_;
  const ops::Operations& ops_;
  // Kept for backward.
  at::Tensor input_; // [m, h]
  at::Tensor gelu_derivative_; // [m, h]
  ops::SavedNorm saved_norm_;
  at::Tensor normed_; // [m, h], input of the decoder
  ops::SavedDecoder saved_decoder_;
};

} // namespace

std::shared_ptr<Block> make_mlm_head(const HeadArguments& arguments) {
  return std::make_shared<MlmHead>(arguments);
}

HeadPrediction predict(
    const HeadArguments& arguments,
    const at::Tensor& hidden_states) {
  const ops::CrossEntropyResult result =
      arguments.parameters->operations().cross_entropy(
          MlmHead(arguments).logits(hidden_states),
          arguments.parameters->tensors[kDecoderBias],
          arguments.batch->packed().labels);
  return {result.losses, result.predicted};
}

at::Tensor head_logits(
    const HeadArguments& arguments,
    const at::Tensor& hidden_states) {
  return MlmHead(arguments)
      .logits(hidden_states)
      .add_(arguments.parameters->tensors[kDecoderBias]);
}

} // namespace deepspeed::bert
