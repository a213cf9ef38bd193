// What the tests of the engine share: a small module, its data, and runs of it
// on several ranks.
#pragma once

#include <torch/nn/functional/loss.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "deepspeed/base/philox.h"
#include "deepspeed/comm/test_gpu.h"
#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/engine/engine.h"
#include "deepspeed/engine/test_shared_doubles.h"

namespace deepspeed {

// Sizes that no number of ranks divides, one parameter that is used twice, one
// that is never used, and a buffer.
struct SmallModule : torch::nn::Module {
  SmallModule() {
    const auto parameter = [&](const std::string& name, at::IntArrayRef sizes) {
      at::Tensor values = at::empty(sizes);
      float* data = values.data_ptr<float>();
      for (int64_t i = 0; i < values.numel(); ++i) {
        data[i] = 0.3f * std::sin(1.0f + static_cast<float>(i * 7 + count));
      }
      count += 100;
      return register_parameter(name, values);
    };
    first = parameter("first", {7, 5});
    shift = parameter("shift", {7});
    unused = parameter("unused", {3});
    tied = parameter("tied", {7, 7});
    last = parameter("last", {1, 7});
    factor = register_buffer("factor", at::full({1}, 1.5f));
  }

  // x: [n, 5], fp32
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor h = x.to(first.scalar_type());
    h = at::tanh(at::linear(h, first, shift));
    h = at::tanh(at::linear(h, tied));
    h = at::tanh(at::linear(h, tied)) * factor.to(h.scalar_type());
    return at::linear(h, last).to(at::kFloat);
  }

  int count = 0;
  at::Tensor first, shift, unused, tied, last, factor;
};

// Micro batch `index` of a run: 4 samples.
inline std::pair<at::Tensor, at::Tensor> micro_batch(int64_t index) {
  at::Tensor x = at::empty({4, 5});
  at::Tensor y = at::empty({4, 1});
  for (int64_t i = 0; i < 20; ++i) {
    x.data_ptr<float>()[i] = std::sin(static_cast<float>(index * 20 + i));
  }
  for (int64_t i = 0; i < 4; ++i) {
    y.data_ptr<float>()[i] = std::cos(static_cast<float>(index * 4 + i));
  }
  return {x, y};
}

struct RunPlan {
  int ranks = 1;
  int stage = 0;
  int accumulation = 1;
  int steps = 20;
  int64_t bucket = 500'000'000;
  std::string dtype = "fp32";
  std::string optimizer = R"({"type": "Adam", "params": {"lr": 0.01}})";
  std::string more; // further keys of the configuration, with a comma before
  std::string save_to; // folder for a checkpoint at the end
  std::string load_from;
  int first_step = 0; // of the data
  std::string device = "cpu"; // "cuda": each rank its own
  bool offload = false;
  bool overlap = true;
  std::string transport;
};

inline std::string config_text(const RunPlan& plan) {
  std::string text = R"({"train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": )" +
      std::to_string(plan.accumulation) + ", \"optimizer\": " + plan.optimizer +
      R"(, "zero_optimization": {"stage": )" + std::to_string(plan.stage) +
      R"(, "reduce_bucket_size": )" + std::to_string(plan.bucket) +
      (plan.overlap ? "" : R"(, "overlap_comm": false)") +
      (plan.offload ? R"(, "offload_optimizer": {"device": "cpu"}})" : "}");
  // A loss scale that does not overflow: all runs make the same steps.
  if (plan.dtype == "fp16") {
    text += R"(, "fp16": {"enabled": true, "initial_scale_power": 8})";
  } else if (plan.dtype == "bf16") {
    text += R"(, "bf16": {"enabled": true})";
  }
  return text + plan.more + "}";
}

inline at::Device device_of(const RunPlan& plan, const comm::RankInfo& info) {
  const bool own = plan.device == "cuda";
  const at::Device device(
      own ? "cuda:" + std::to_string(info.local_rank) : plan.device);
  if (!device.is_cpu()) {
    comm::load_cuda();
  }
  return device;
}

struct Trace {
  std::vector<double> losses; // of each step, over ranks and micro batches
  std::vector<double> norms; // of each step's gradient
  std::vector<double> weights; // after the last step

  bool operator==(const Trace&) const = default;
};

inline Trace train(const RunPlan& plan) {
  constexpr int64_t kWeights = 35 + 7 + 3 + 49 + 7;
  SharedDoubles losses(plan.ranks * plan.steps);
  SharedDoubles norms(plan.steps);
  SharedDoubles weights(kWeights);
  comm::Ranks ranks(plan.ranks, [&](const comm::RankInfo& info) {
    InitializeOptions options;
    options.ranks =
        comm::make_process_group(info, comm::options_of(plan.transport, {}));
    config::Context context;
    context.world_size = plan.ranks;
    auto module = std::make_shared<SmallModule>();
    const at::Device device = device_of(plan, info);
    module->to(device);
    Engine engine = initialize(
        module,
        config::parse_config(config_text(plan), "test", context),
        options);
    if (!plan.load_from.empty()) {
      engine.load_checkpoint(plan.load_from);
    }
    for (int step = 0; step < plan.steps; ++step) {
      for (int micro = 0; micro < plan.accumulation; ++micro) {
        const int64_t index =
            ((plan.first_step + step) * plan.accumulation + micro) *
                plan.ranks +
            info.rank;
        const auto [x, y] = micro_batch(index);
        const at::Tensor loss =
            at::mse_loss(module->forward(x.to(device)), y.to(device));
        losses[info.rank * plan.steps + step] +=
            loss.item<double>() / plan.accumulation;
        engine.backward(loss);
        engine.step();
      }
      if (info.rank == 0) {
        norms[step] = engine.get_global_grad_norm();
      }
    }
    if (!plan.save_to.empty()) {
      engine.save_checkpoint(plan.save_to);
    }
    int64_t next = 0;
    for (const auto& [name, tensor] : engine.fp32_parameters()) {
      for (int64_t i = 0; i < tensor.numel() && info.rank == 0; ++i) {
        weights[next++] = tensor.data_ptr<float>()[i];
      }
    }
  });
  ranks.expect_success();
  Trace trace{std::vector<double>(plan.steps), norms.all(), weights.all()};
  for (int rank = 0; rank < plan.ranks; ++rank) {
    for (int step = 0; step < plan.steps; ++step) {
      trace.losses[step] += losses[rank * plan.steps + step] / plan.ranks;
    }
  }
  return trace;
}

// The largest difference of the losses, relative to the larger one.
inline double loss_difference(
    const std::vector<double>& a,
    const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    worst = std::max(
        worst, std::abs(a[i] - b[i]) / std::max(std::abs(a[i]), 1e-12));
  }
  return worst;
}

} // namespace deepspeed
