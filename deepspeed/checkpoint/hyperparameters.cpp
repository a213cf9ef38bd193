// What Python's optimizers expect in their param groups.
// Sources: torch/optim/{adam,adamw,sgd,adagrad}.py, and fused_adam.py,
// cpu_adam.py, fused_lamb.py, fused_lion.py and cpu_adagrad.py of DeepSpeed.
#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <utility>

#include "deepspeed/checkpoint/zero_states.h"

namespace deepspeed::checkpoint {
namespace {

using Defaults = std::initializer_list<std::pair<const char*, formats::Value>>;

formats::Value pair_of(double first, double second) {
  return formats::Tuple{{first, second}};
}

void add(formats::Value& group, const Defaults& defaults) {
  for (const auto& [key, value] : defaults) {
    if (group.find(key) == nullptr) {
      group.set(key, value);
    }
  }
}

} // namespace

formats::Value complete_hyperparameters(
    const std::string& optimizer,
    formats::Value given) {
  std::string type = optimizer;
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  const formats::Value none;
  const formats::Value no = false;
  add(given, {{"lr", 1e-3}, {"weight_decay", 0.0}});
  if (type.find("adam") != std::string::npos) {
    // Of torch's classes, FusedAdam and CPUAdam together: none minds a key of
    // the others.
    add(given,
        {{"bias_correction", true},
         {"betas", pair_of(0.9, 0.999)},
         {"eps", 1e-8},
         {"amsgrad", no},
         {"maximize", no},
         {"foreach", none},
         {"capturable", no},
         {"differentiable", no},
         {"fused", none},
         {"decoupled_weight_decay", true}});
  } else if (type == "sgd") {
    add(given,
        {{"momentum", 0.0},
         {"dampening", 0.0},
         {"nesterov", no},
         {"maximize", no},
         {"foreach", none},
         {"differentiable", no},
         {"fused", none}});
  } else if (type == "lamb") {
    add(given,
        {{"bias_correction", true},
         {"betas", pair_of(0.9, 0.999)},
         {"eps", 1e-8},
         {"max_grad_norm", 0.0},
         {"max_coeff", 10.0},
         {"min_coeff", 0.01}});
  } else if (type == "lion") {
    add(given, {{"betas", pair_of(0.9, 0.99)}});
  } else if (type == "adagrad") {
    add(given,
        {{"lr_decay", 0.0},
         {"eps", 1e-10},
         {"initial_accumulator_value", 0.0},
         {"amsgrad", no},
         {"maximize", no},
         {"foreach", none},
         {"differentiable", no},
         {"fused", none}});
  }
  return given;
}

} // namespace deepspeed::checkpoint
