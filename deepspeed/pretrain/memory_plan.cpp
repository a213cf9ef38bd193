// How much memory a rank will need, told before it is taken.
#include "deepspeed/pretrain/memory_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "deepspeed/kernels/softmax_block.h"
#include "deepspeed/machine/system_info.h"

namespace deepspeed::pretrain {
namespace {

// glibc keeps gaps between the activations of one step, whose sizes differ from
// those of the next: measured as 3 to 25 % of them in 20 steps.
constexpr double kGaps = 1.125;

double dtype_bytes(const std::string& dtype) {
  return dtype == "fp32" ? 4 : 2;
}

// Tokens of the run's largest micro batch on this rank.
double largest_batch(const MemoryPlanInputs& inputs) {
  constexpr int64_t kMostLines = 1 << 20;
  const settings::OptimizerSettings& o = inputs.settings.optimizer;
  const int64_t lines =
      o.batch_size * o.gradient_accumulation_steps * inputs.ranks;
  const int64_t steps = std::min(
      inputs.settings.run.num_iterations,
      std::max<int64_t>(1, kMostLines / lines));
  const text::BatchMaker& batches = *inputs.data.train().batches;
  uint64_t most = 0;
  for (int64_t step = 0; step < steps; ++step) {
    const text::DealtStep dealt =
        batches.deal(static_cast<uint64_t>(step * lines));
    for (int64_t micro = 0; micro < o.gradient_accumulation_steps; ++micro) {
      most = std::max(
          most,
          batches.tokens(dealt.micro_batch(
              static_cast<uint64_t>(micro),
              static_cast<uint64_t>(inputs.rank))));
    }
  }
  return static_cast<double>(most);
}

// What the blocks of bert/ keep for backward, and the most that the head needs
// besides: then the layers' activations are all there.
double activation_bytes(const MemoryPlanInputs& inputs) {
  const bert::RobertaConfig& c = inputs.model;
  const std::string& dtype = inputs.settings.machine.dtype;
  const double bytes = dtype_bytes(dtype);
  const auto h = static_cast<double>(c.hidden_size);
  const auto f = static_cast<double>(c.intermediate_size);
  const auto v = static_cast<double>(c.vocab_size);
  const double tokens = largest_batch(inputs);
  const double p = inputs.settings.data.mask_prob;
  // Each token is masked with probability p: three deviations more than most.
  const double masked =
      std::min(tokens, tokens * p + 3 * std::sqrt(tokens * p * (1 - p)));
  // Input, key and value: h each for all tokens of a layer. For those with an
  // output query, context, two normalized sums, middle: h each; activation and
  // its derivative: f each.
  const double sources = 3 * h * bytes;
  const double rest = (5 * h + 2 * f) * bytes +
      4 * static_cast<double>(c.num_attention_heads) + 2 * 4;
  const double selected = h * bytes; // of the last layer's input
  const double layers =
      static_cast<double>(c.num_hidden_layers) * tokens * (sources + rest) -
      (tokens - masked) * rest + masked * selected;
  const double embedding = tokens * (h * bytes + 4);
  // Exponentials of the logits stand padded.
  const double head =
      (masked * 3 * h + (masked + kernels::kSoftmaxColumns) * v) * bytes;
  return kGaps * (layers + embedding + head);
}

} // namespace

MemoryPlan plan_memory(const MemoryPlanInputs& inputs) {
  const settings::Settings& settings = inputs.settings;
  const double bytes = dtype_bytes(settings.machine.dtype);
  const auto all = static_cast<double>(bert::parameter_count(inputs.model));
  const bool sharded =
      settings.engine.enabled && settings.engine.zero_stage > 0;
  const double peers = static_cast<double>(inputs.ranks - 1);
  const double shard = sharded ? all / static_cast<double>(inputs.ranks) : all;
  MemoryPlan plan;
  plan.program = static_cast<double>(machine::resident_memory());
  plan.parameters = all * bytes;
  plan.gradients = all * 4 + (inputs.whole_gradients ? 0 : shard * 4);
  plan.optimizer = shard * ((bytes < 4 ? 4 : 0) + 4 * inputs.moments);
  if (inputs.shared_memory) {
    // What this rank reads of each other's: its part of the gradients to sum,
    // and the other's part of the new weights, in stage 0 of the gradients.
    const double part = peers * all / static_cast<double>(inputs.ranks);
    plan.gradients += inputs.whole_gradients ? part * (sharded ? 4 : 8) : 0;
    plan.parameters += sharded ? part * bytes : 0;
  }
  plan.activations = activation_bytes(inputs);
  return plan;
}

std::string memory_plan_text(const MemoryPlan& plan) {
  constexpr double kMb = 1e6;
  std::array<char, 200> text{};
  std::snprintf(
      text.data(),
      text.size(),
      "parameters %.0f MB, gradients %.0f MB, optimizer %.0f MB, activations "
      "at most %.0f MB, program and data %.0f MB, total %.0f MB",
      plan.parameters / kMb,
      plan.gradients / kMb,
      plan.optimizer / kMb,
      plan.activations / kMb,
      plan.program / kMb,
      plan.total() / kMb);
  return text.data();
}

} // namespace deepspeed::pretrain
