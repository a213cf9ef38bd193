// The block "optimizer".
#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

OptimizerType read_type(Section& block) {
  if (!block.has("type")) {
    block.fail(
        "type",
        "optimizer has no type",
        "write \"type\": \"Adam\", \"AdamW\", \"SGD\" or \"Lamb\"");
  }
  for (const char* name :
       {"Lion",
        "Adagrad",
        "Muon",
        "MuAdam",
        "MuAdamW",
        "MuSGD",
        "OneBitAdam",
        "OneBitLamb",
        "ZeroOneAdam"}) {
    if (block.is_word("type", name)) {
      block.fail(
          "type",
          std::string("the optimizer ") + name + " is not implemented",
          "use \"Adam\", \"AdamW\", \"SGD\" or \"Lamb\"");
    }
  }
  OptimizerType type = OptimizerType::none;
  block.read(
      "type",
      type,
      {{"Adam", OptimizerType::adam},
       {"AdamW", OptimizerType::adamw},
       {"SGD", OptimizerType::sgd},
       {"Lamb", OptimizerType::lamb}},
      /*any_case=*/true);
  return type;
}

// Two numbers in [0, 1).
void read_betas(
    Section& params,
    const Context& context,
    std::array<double, 2>& betas) {
  std::vector<double> given(betas.begin(), betas.end());
  const Auto<std::vector<double>> automatic{
      context.betas, "--adam_beta1 and --adam_beta2"};
  if (!params.read_auto("betas", given, automatic)) {
    params.read("betas", given, kBelowOne);
  }
  if (given.size() != 2) {
    params.fail("betas", "betas must be two numbers", "write [0.9, 0.999]");
  }
  betas = {given[0], given[1]};
}

void read_common(
    Section& params,
    const Context& context,
    OptimizerParams& result) {
  params.read(
      "lr",
      result.lr,
      kNotNegative,
      Auto<double>{context.lr, "--learning_rate"});
  params.read(
      "weight_decay",
      result.weight_decay,
      kNotNegative,
      Auto<double>{context.weight_decay, "--weight_decay"});
  if (params.has("max_grad_norm")) {
    params.fail(
        "max_grad_norm",
        "max_grad_norm is not a parameter of the optimizer",
        "set the top-level key \"gradient_clipping\"");
  }
}

void read_moments(
    Section& params,
    const Context& context,
    OptimizerParams& result) {
  read_betas(params, context, result.betas);
  params.read(
      "eps",
      result.eps,
      kNotNegative,
      Auto<double>{context.eps, "--adam_epsilon"});
  params.read("bias_correction", result.bias_correction);
  params.refuse_unless("amsgrad", false, "AMSGrad is not implemented");
}

// Arguments of torch's optimizers that choose between equal implementations.
void read_torch_choices(Section& params) {
  const char* reason = "there is one implementation, over flat buffers";
  params.no_effect("foreach", nullptr, reason);
  params.no_effect("fused", nullptr, reason);
  params.refuse_unless("maximize", false, "only minimizing is implemented");
  params.refuse_unless(
      "differentiable", false, "the update is not part of the graph");
}

void read_adam(
    Section& params,
    const Context& context,
    OptimizerType type,
    OptimizerParams& result) {
  params.read("torch_adam", result.torch_adam);
  params.read("adam_w_mode", result.adam_w_mode);
  if (type == OptimizerType::adamw && !result.adam_w_mode) {
    params.fail(
        "adam_w_mode",
        "AdamW with adam_w_mode false",
        "use \"type\": \"Adam\" for weight decay inside the gradient");
  }
  if (result.torch_adam) {
    result.weight_decay = result.adam_w_mode ? 0.01 : 0.0;
    params.refuse_unless(
        "bias_correction", true, "torch's Adam always corrects the bias");
    read_torch_choices(params);
    params.no_effect("capturable", false, "nothing is captured here");
  }
  params.refuse_unless(
      "fp32_optimizer_states", true, "the moments are always fp32");
  read_moments(params, context, result);
}

void read_sgd(Section& params, OptimizerParams& result) {
  params.read("momentum", result.momentum, kNotNegative);
  params.read("dampening", result.dampening, kAny);
  params.read("nesterov", result.nesterov);
  if (result.nesterov && (result.momentum == 0.0 || result.dampening != 0.0)) {
    params.fail(
        "nesterov",
        "nesterov needs a momentum and no dampening",
        "set \"momentum\", and \"dampening\" to 0");
  }
  read_torch_choices(params);
}

void read_lamb(
    Section& params,
    const Context& context,
    OptimizerParams& result) {
  read_moments(params, context, result);
  params.read("max_coeff", result.max_coeff, kPositive);
  params.read("min_coeff", result.min_coeff, kNotNegative);
  if (result.min_coeff > result.max_coeff) {
    params.fail(
        "min_coeff",
        "min_coeff is greater than max_coeff",
        "the trust ratio lies between min_coeff and max_coeff");
  }
  params.refuse_unless(
      "eps_inside_sqrt", false, "eps is added after the square root");
}

} // namespace

void read_optimizer(Section& root, const Context& context, Optimizer& result) {
  Section block = root.child("optimizer");
  if (!root.has("optimizer")) {
    if (context.optimizer) {
      result = *context.optimizer;
      root.warn(
          "optimizer", "is not there: the program's own optimizer is taken");
    }
    return;
  }
  result.type = read_type(block);
  Section params = block.child("params");
  switch (result.type) {
    case OptimizerType::none:
      break;
    case OptimizerType::adam:
    case OptimizerType::adamw:
      read_adam(params, context, result.type, result.params);
      break;
    case OptimizerType::sgd:
      read_sgd(params, result.params);
      break;
    case OptimizerType::lamb:
      read_lamb(params, context, result.params);
      break;
  }
  read_common(params, context, result.params);
  params.finish();
  block.no_effect(
      "legacy_fusion", false, "it belongs to DeepSpeed's own fused kernels");
  block.finish();
}

} // namespace deepspeed::config
