// What an engine is made of.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/engine/engine.h"
#include "deepspeed/engine/monitor.h"
#include "deepspeed/engine/wall_clock.h"
#include "deepspeed/optim/loss_scaler.h"
#include "deepspeed/optim/lr_scheduler.h"
#include "deepspeed/optim/skipped_steps.h"
#include "deepspeed/zero/gradient_reducer.h"
#include "deepspeed/zero/sharded_optimizer.h"

namespace deepspeed {

// The settings of one param group that may change while training.
struct GroupSettings {
  double lr = 0;
  double beta1 = 0; // or the momentum
  double beta2 = 0;
  double weight_decay = 0;
};

// How far training is.
struct Progress {
  int64_t global_steps = 0;
  int64_t global_samples = 0;
  int64_t micro_steps = 0;
  int64_t skipped_steps = 0;
  optim::SkippedSteps skipped;
  double gradient_norm = 0; // of the last step
  bool applied = false; // the last step
};

// Where the step under way is, from its first backward() to its update.
struct GradientPhase {
  bool step_begun = false; // a backward since the last update
  bool micro_begun = false; // a backward since the last step()
  bool reduced = false; // the last backward was the one that sums
  bool in_no_sync = false;
  std::optional<bool> forced_boundary;
};

// What the checks of the module count, and what they have said once.
struct ModuleChecks {
  // A hash of what was changed in place since the last update; 0: nothing. The
  // same on all ranks, or their weights part.
  int64_t changes = 0;
  bool changes_named = false;
  bool freezing_named = false;
  bool unused_named = false;
  bool registered_checked = false; // see check_registered()
};

struct Curves {
  std::unique_ptr<Monitor> monitor; // null: no curves, or not rank 0
  double loss_sum = 0; // of this step's micro batches
  int64_t losses = 0;
};

struct EngineState {
  std::shared_ptr<torch::nn::Module> module;
  config::Config config;
  InitializeOptions options;
  std::shared_ptr<comm::ProcessGroup> ranks;

  zero::Placement placement;
  std::vector<std::unique_ptr<zero::FlatGroup>> groups;
  std::vector<GroupSettings> settings; // one for each group
  std::unique_ptr<zero::GradientReducer> reducer;
  std::unique_ptr<zero::ShardedOptimizer> optimizer;
  std::unique_ptr<optim::LrScheduler> scheduler; // null: constant or options'
  std::unique_ptr<optim::LossScaler> loss_scaler;
  flat::NamedParameters rest; // in no group: not trained here
  // Those of them that would be trained, had they required a gradient.
  flat::NamedParameters frozen;

  Progress progress;
  GradientPhase phase;
  ModuleChecks checks;
  Curves curves;
  WallClock clock;

  // The step under way begins anew with the next backward.
  void forget_gradients();
  bool is_boundary() const;
  double loss_divisor() const;
  // What a summed gradient is to be multiplied by, besides the loss scale.
  double mean_factor() const;
};

// Gradients before the sum are divided by this (prescale_gradients,
// gradient_predivide_factor).
double predivide_factor(const config::Config& config, int ranks);

at::ScalarType scalar_type(config::Dtype dtype);

// The settings' learning rates and momenta for the next update.
void set_learning_rates(EngineState& state);

// Error(config) where the configuration and the program do not go together.
void check_settings(const EngineState& state);

// At the start of each call: std::logic_error when the module was moved or has
// gradients that are not the engine's; takes weights that were changed.
void check_parameters(EngineState& state);

// Names of parameters that were registered after initialize() and would be
// trained, had they been there. Walks the module.
std::vector<std::string> registered_late(const EngineState& state);

// Before the first update, as a first forward() may register some:
// std::logic_error for registered_late().
void check_registered(EngineState& state);

// Of the mean gradient times the loss scale and so on: of the sums as they are.
// std::logic_error on all ranks when no parameter has a gradient, or when not
// all have changed weights.
double gradient_norm(EngineState& state);

// Groups, reducer and optimizer for the state's module, configuration and
// ranks.
void build(EngineState& state);

} // namespace deepspeed
