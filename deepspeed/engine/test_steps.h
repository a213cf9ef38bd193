// What the tests of single engine calls share: engines in forked ranks, and the
// same steps without an engine.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/engine/test_engine.h"

namespace deepspeed {

// Runs `body` as each of `count` ranks, in processes of their own.
inline void on_ranks(
    int count,
    const std::function<void(const std::shared_ptr<comm::ProcessGroup>&)>&
        body) {
  comm::Ranks ranks(count, [&](const comm::RankInfo& info) {
    body(comm::make_process_group(info, comm::options_of("", {})));
  });
  ranks.expect_success();
}

// An engine on `ranks`; the plan's number of ranks does not matter.
inline Engine make_engine(
    const std::shared_ptr<torch::nn::Module>& module,
    const std::shared_ptr<comm::ProcessGroup>& ranks,
    const RunPlan& plan,
    InitializeOptions options = {}) {
  config::Context context;
  context.world_size = ranks->size();
  options.ranks = ranks;
  return initialize(
      module,
      config::parse_config(config_text(plan), "test", context),
      std::move(options));
}

inline at::Tensor loss_of(SmallModule& module, int64_t batch) {
  const auto [x, y] = micro_batch(batch);
  return at::mse_loss(module.forward(x), y);
}

// One micro batch after another; `batch` counts those of all ranks.
inline void train_step(Engine& engine, SmallModule& module, int64_t step) {
  const int64_t accumulation = engine.gradient_accumulation_steps();
  for (int64_t micro = 0; micro < accumulation; ++micro) {
    const int64_t first = (step * accumulation + micro) * engine.ranks().size();
    engine.backward(loss_of(module, first + engine.ranks().rank()));
    engine.step();
  }
}

// What a loop without an engine leaves in parameter.grad(): the mean over
// `count` micro batches. Parameters without a gradient get zeros.
inline void plain_backward(SmallModule& module, int64_t first, int64_t count) {
  for (const at::Tensor& parameter : module.parameters()) {
    parameter.mutable_grad() = at::zeros_like(parameter);
  }
  for (int64_t i = 0; i < count; ++i) {
    (loss_of(module, first + i) / static_cast<double>(count)).backward();
  }
}

inline std::vector<at::Tensor> copies_of(const torch::nn::Module& module) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& parameter : module.parameters()) {
    copies.push_back(parameter.detach().to(at::kFloat, false, /*copy=*/true));
  }
  return copies;
}

// The largest difference between values of the parameters, in fp32.
inline double largest_difference(
    const std::vector<at::Tensor>& a,
    const std::vector<at::Tensor>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, (a[i] - b[i]).abs().max().item<double>());
  }
  return largest;
}

} // namespace deepspeed
