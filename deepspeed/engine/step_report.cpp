// What an engine says about its steps: lines on standard error, and curves.
#include "deepspeed/engine/step_report.h"

#include <algorithm>
#include <cstdio>

#include "deepspeed/base/log.h"
#include "deepspeed/machine/system_info.h"

namespace deepspeed {
namespace {

const std::vector<std::string> kMicroStepClocks = {
    "fwd_microstep",
    "bwd_microstep",
    "bwd_inner_microstep",
    "bwd_allreduce_microstep",
    "step_microstep"};
const std::vector<std::string> kStepClocks =
    {"fwd", "bwd", "bwd_inner", "bwd_allreduce", "step"};
const std::vector<std::string> kOptimizerClocks = {
    "optimizer_allgather",
    "optimizer_gradients",
    "optimizer_step"};

void print_step(const EngineState& state) {
  const int64_t every = state.config.steps_per_print;
  if (every <= 0 || state.progress.global_steps % every != 0) {
    return;
  }
  std::string lrs;
  std::string momenta;
  for (const GroupSettings& settings : state.settings) {
    char text[96];
    std::snprintf(text, sizeof text, "%.6g", settings.lr);
    lrs += (lrs.empty() ? "" : ", ") + std::string(text);
    std::snprintf(
        text, sizeof text, "(%.6g, %.6g)", settings.beta1, settings.beta2);
    momenta += (momenta.empty() ? "" : ", ") + std::string(text);
  }
  base::log_info(
      "step=" + std::to_string(state.progress.global_steps) +
      ", skipped=" + std::to_string(state.progress.skipped_steps) + ", lr=[" +
      lrs + "], mom=[" + momenta + "]");
}

// Of this process: other ranks have shards of the same size.
void print_memory(const EngineState& state) {
  constexpr double kMiB = 1 << 20;
  if (!state.config.memory_breakdown) {
    return;
  }
  char text[96];
  std::snprintf(
      text,
      sizeof text,
      "memory of rank 0: resident %.1f MiB, peak %.1f MiB",
      static_cast<double>(machine::resident_memory()) / kMiB,
      static_cast<double>(machine::peak_memory()) / kMiB);
  base::log_info(text);
}

void write_curves(EngineState& state) {
  if (!state.curves.monitor) {
    return;
  }
  const auto add = [&](const std::string& name, double value) {
    state.curves.monitor->add(
        "Train/Samples/" + name, value, state.progress.global_samples);
  };
  add("train_loss",
      state.curves.loss_sum / static_cast<double>(state.curves.losses));
  add("lr", state.settings[0].lr);
  if (state.config.fp16.enabled) {
    add("loss_scale", state.loss_scaler->scale());
  }
  add("grad_norm", state.progress.gradient_norm);
  if (state.config.wall_clock_breakdown) {
    for (const auto& [clock, name] :
         {std::pair{"fwd", "forward"},
          {"bwd", "backward"},
          {"bwd_inner", "backward_inner"},
          {"bwd_allreduce", "backward_allreduce"},
          {"step", "step"}}) {
      add(std::string("elapsed_time_ms_") + name,
          state.clock.seconds(clock) * 1000);
    }
  }
  state.curves.monitor->flush();
}

std::string reduction_line(const EngineState& state) {
  const double reduce = state.reducer->reduce_seconds();
  const double hidden = reduce > 0
      ? std::max(0.0, 1 - state.reducer->exposed_seconds() / reduce)
      : 0;
  char text[96];
  std::snprintf(
      text,
      sizeof text,
      "reduction: %.2f ms, %.0f %% of it hidden behind backward",
      reduce * 1000,
      hidden * 100);
  return text;
}

// The lines of DeepSpeed 0.19.8, in its order, and one of ours: deepspeed/
// runtime/engine.py, EngineTimers; zero/stage_1_and_2.py, OPTIMIZER_TIMERS,
// which are those of ZeRO and of updates that took place. Forgets the times of
// this micro batch, at a boundary those of the step.
void print_clocks(EngineState& state, bool boundary, bool root) {
  const bool prints = root && state.config.wall_clock_breakdown;
  const auto print = [&](const std::string& line) {
    if (prints) {
      base::log_info(line);
    }
  };
  if (boundary) {
    const std::string line = state.clock.line(kOptimizerClocks);
    if (state.progress.applied && state.config.zero_optimization.stage > 0) {
      print(line);
    }
  }
  print(state.clock.line(kMicroStepClocks));
  if (boundary) {
    print(state.clock.line(kStepClocks));
    print(reduction_line(state));
  }
}

} // namespace

void report_step(EngineState& state, bool boundary) {
  const bool root = state.ranks->rank() == 0;
  if (boundary && root) {
    print_step(state);
    print_memory(state);
    write_curves(state);
  }
  print_clocks(state, boundary, root);
}

} // namespace deepspeed
