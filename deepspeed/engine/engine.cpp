// Backward, step, and what an engine says about itself.
#include "deepspeed/engine/engine.h"

#include <cmath>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/engine/state.h"
#include "deepspeed/engine/step_report.h"
#include "deepspeed/flat/aliases.h"
#include "deepspeed/optim/adam.h"

namespace deepspeed {
namespace {

bool is_root(const EngineState& state) {
  return state.ranks->rank() == 0;
}

// Parameters without a gradient get zeros, as in DeepSpeed; a user who did not
// mean that sees their names once.
void name_unused(EngineState& state) {
  const std::vector<std::string>& unused = state.reducer->unused();
  if (unused.empty() || state.checks.unused_named) {
    return;
  }
  state.checks.unused_named = true;
  const std::string names = flat::shortened(unused);
  if (!state.config.zero_optimization.ignore_unused_parameters) {
    throw base::Error(
        base::ExitCode::config,
        "parameters without a gradient: " + names,
        "zero_optimization.ignore_unused_parameters is false",
        "freeze them (requires_grad_(false)), or ignore them");
  }
  if (is_root(state)) {
    base::log_info("parameters without a gradient (they get zeros): " + names);
  }
}

void update(EngineState& state, double scale_of_loss) {
  double factor = state.mean_factor() / scale_of_loss;
  const double clip = state.config.gradient_clipping;
  if (clip > 0) {
    factor *= optim::clip_factor(state.progress.gradient_norm, clip);
  }
  std::vector<optim::ShardStep> steps;
  for (const GroupSettings& settings : state.settings) {
    steps.push_back({settings.lr, settings.beta1, settings.beta2, factor});
  }
  state.optimizer->step(steps);
}

// Says which parameter went wrong and ends the run where going on is no use.
void after_skip(EngineState& state, double scale_of_loss) {
  ++state.progress.skipped_steps;
  const bool scaled = state.config.fp16.enabled;
  if (scaled && state.config.dynamic_loss_scale() &&
      state.loss_scaler->scale() < scale_of_loss) {
    if (is_root(state)) {
      base::log_info(
          "gradient overflow: step skipped, loss scale " +
          std::to_string(scale_of_loss) + " -> " +
          std::to_string(state.loss_scaler->scale()));
    }
    return;
  }
  const auto name = state.optimizer->first_not_finite();
  const std::string where =
      name ? "parameter " + *name : "the norm of the gradients";
  if (is_root(state)) {
    base::log_warning(
        "the gradient of step " + std::to_string(state.progress.global_steps) +
        " is not finite (" + where + "): the update is skipped");
  }
  if (!state.config.dynamic_loss_scale() &&
      state.progress.skipped.is_hopeless()) {
    throw base::Error(
        base::ExitCode::internal,
        "the gradient was not finite for " +
            std::to_string(state.progress.skipped.in_a_row()) +
            " steps in a row",
        where,
        "go on from the last checkpoint with a smaller learning rate, or "
        "with gradient_clipping");
  }
}

// DeepSpeed's backward() returns when the sums are there; ours waits for them
// here, and the clocks say what DeepSpeed's say.
void wait_for_sums(EngineState& state) {
  const Timed backward(state.clock, "bwd");
  const Timed reduction(state.clock, "bwd_allreduce");
  if (!state.phase.reduced) {
    state.reducer->reduce_now();
  }
  state.reducer->wait();
}

void take_step(EngineState& state) {
  const double scale = state.loss_scaler->scale();
  {
    const Timed timed(state.clock, "optimizer_gradients", Timed::Of::step);
    state.progress.gradient_norm =
        gradient_norm(state) * state.mean_factor() / scale;
  }
  name_unused(state);
  const bool finite = std::isfinite(state.progress.gradient_norm);
  const bool unchecked =
      state.config.bf16.enabled && !state.config.bf16.check_grad_overflow;
  state.progress.applied = finite || unchecked;
  if (state.progress.applied) {
    {
      const Timed timed(state.clock, "optimizer_step", Timed::Of::step);
      update(state, scale);
    }
    const double gather = state.optimizer->gather_seconds();
    state.clock.add("optimizer_step", -gather);
    state.clock.add("optimizer_allgather", gather);
  }
  // The scale that scaled this loss has done its work; the next one is set now.
  state.loss_scaler->update(!finite);
  ++state.progress.global_steps;
  state.progress.global_samples += state.config.train_batch_size;
  state.progress.skipped.count(!state.progress.applied);
  if (!state.progress.applied) {
    after_skip(state, scale);
  }
  if (state.progress.applied && state.scheduler != nullptr) {
    state.scheduler->step();
  }
  set_learning_rates(state);
}

void check_backward(const EngineState& state, const at::Tensor& loss) {
  if (state.reducer->in_backward()) {
    throw std::logic_error("backward() inside of backward()");
  }
  if (loss.numel() != 1) {
    throw std::invalid_argument(
        "backward() needs a scalar loss, not one of " +
        std::to_string(loss.numel()) + " elements");
  }
  if (!loss.requires_grad()) {
    throw std::invalid_argument(
        "backward() of a loss that depends on no parameter");
  }
  // Its gradients would be added to sums over the ranks.
  if (state.phase.reduced) {
    throw std::logic_error(
        "backward() after the last one of the step: call step(), or before "
        "it set_gradient_accumulation_boundary(false)");
  }
}

// Returns the loss as a part of the step's mean.
at::Tensor run_backward(EngineState& state, const at::Tensor& loss) {
  GradientPhase& phase = state.phase;
  if (!std::exchange(phase.step_begun, true)) {
    state.reducer->begin_step();
  }
  phase.micro_begun = true;
  // Without managed accumulation only step() knows which micro batch is last.
  const bool last = !phase.in_no_sync &&
      (phase.forced_boundary || state.config.managed_gradient_accumulation) &&
      state.is_boundary();
  const at::Tensor mean = loss / state.loss_divisor();
  state.reducer->begin_backward(last);
  try {
    (state.config.fp16.enabled ? mean * state.loss_scaler->scale() : mean)
        .backward();
  } catch (...) {
    state.forget_gradients();
    throw;
  }
  phase.reduced = last;
  if (state.curves.monitor) {
    state.curves.loss_sum += loss.item<double>();
    ++state.curves.losses;
  }
  return mean.detach();
}

} // namespace

void EngineState::forget_gradients() {
  reducer->abandon_step();
  phase.step_begun = false;
  phase.micro_begun = false;
  phase.reduced = false;
  curves.loss_sum = 0;
  curves.losses = 0;
}

void set_learning_rates(EngineState& state) {
  if (state.options.learning_rate) {
    const int64_t updates =
        state.progress.global_steps - state.progress.skipped_steps;
    for (GroupSettings& settings : state.settings) {
      settings.lr = state.options.learning_rate(updates);
    }
  }
  if (state.scheduler == nullptr) {
    return;
  }
  for (size_t i = 0; i < state.settings.size(); ++i) {
    GroupSettings& settings = state.settings[i];
    settings.lr = state.scheduler->lr(i);
    if (const auto betas = state.scheduler->betas(i)) {
      settings.beta1 = (*betas)[0];
      if (state.config.optimizer.type != config::OptimizerType::sgd) {
        settings.beta2 = (*betas)[1];
      }
    }
  }
}

bool EngineState::is_boundary() const {
  if (phase.forced_boundary) {
    return *phase.forced_boundary;
  }
  return !config.managed_gradient_accumulation ||
      (progress.micro_steps + 1) % config.gradient_accumulation_steps == 0;
}

double EngineState::loss_divisor() const {
  return config.managed_gradient_accumulation
      ? static_cast<double>(config.gradient_accumulation_steps)
      : 1.0;
}

double EngineState::mean_factor() const {
  const double before = predivide_factor(config, ranks->size());
  if (config.gradient_allreduce_op == config::AllreduceOp::sum) {
    return before;
  }
  return before / ranks->size();
}

Engine::Engine(std::unique_ptr<EngineState> state) : state_(std::move(state)) {
  set_learning_rates(*state_);
}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

at::Tensor Engine::backward(const at::Tensor& loss) {
  EngineState& state = *state_;
  check_backward(state, loss);
  check_parameters(state);
  state.clock.end_forward();
  const Timed call(state.clock, "bwd", base::SpanName{"backward"});
  at::Tensor mean;
  {
    const Timed inner(state.clock, "bwd_inner");
    mean = run_backward(state, loss);
  }
  {
    const Timed reduction(state.clock, "bwd_allreduce");
    state.reducer->end_backward();
  }
  state.clock.begin_forward();
  return mean;
}

void Engine::step() {
  EngineState& state = *state_;
  if (state.phase.in_no_sync) {
    throw std::logic_error("step() inside no_sync()");
  }
  if (!state.phase.micro_begun) {
    throw std::logic_error("step() without backward()");
  }
  check_parameters(state);
  const bool boundary = state.is_boundary();
  if (boundary) {
    check_registered(state);
    wait_for_sums(state);
  }
  {
    const Timed timed(state.clock, "step");
    if (boundary) {
      take_step(state);
      state.phase.step_begun = false;
      state.phase.reduced = false;
    }
    state.phase.micro_begun = false;
    ++state.progress.micro_steps;
  }
  report_step(state, boundary);
  if (boundary) {
    state.curves.loss_sum = 0;
    state.curves.losses = 0;
  }
  state.clock.begin_forward();
}

bool Engine::is_gradient_accumulation_boundary() const {
  return state_->is_boundary();
}

void Engine::set_gradient_accumulation_boundary(bool is_boundary) {
  state_->phase.forced_boundary = is_boundary;
}

Engine::NoSync::NoSync(EngineState& state) : state_(state) {
  state_.phase.in_no_sync = true;
}

Engine::NoSync::~NoSync() {
  state_.phase.in_no_sync = false;
}

Engine::NoSync Engine::no_sync() {
  if (state_->config.zero_optimization.stage >= 2) {
    throw std::logic_error(
        "no_sync() with ZeRO stage 2, which cuts gradients at once");
  }
  if (state_->phase.in_no_sync) {
    throw std::logic_error("no_sync() inside no_sync()");
  }
  return NoSync(*state_);
}

double Engine::get_global_grad_norm() const {
  return state_->progress.gradient_norm;
}

bool Engine::was_step_applied() const {
  return state_->progress.applied;
}

int64_t Engine::global_steps() const {
  return state_->progress.global_steps;
}

int64_t Engine::global_samples() const {
  return state_->progress.global_samples;
}

int64_t Engine::micro_steps() const {
  return state_->progress.micro_steps;
}

int64_t Engine::skipped_steps() const {
  return state_->progress.skipped_steps;
}

double Engine::loss_scale() const {
  return state_->loss_scaler->scale();
}

std::vector<double> Engine::get_lr() const {
  std::vector<double> rates;
  for (const GroupSettings& settings : state_->settings) {
    rates.push_back(settings.lr);
  }
  return rates;
}

std::vector<std::pair<double, double>> Engine::get_mom() const {
  std::vector<std::pair<double, double>> momenta;
  for (const GroupSettings& settings : state_->settings) {
    momenta.emplace_back(settings.beta1, settings.beta2);
  }
  return momenta;
}

int64_t Engine::train_batch_size() const {
  return state_->config.train_batch_size;
}

int64_t Engine::train_micro_batch_size_per_gpu() const {
  return state_->config.train_micro_batch_size_per_gpu;
}

int64_t Engine::gradient_accumulation_steps() const {
  return state_->config.gradient_accumulation_steps;
}

void Engine::set_train_batch_size(int64_t train_batch_size) {
  config::set_train_batch_size(
      state_->config, train_batch_size, state_->ranks->size());
}

void Engine::set_train_micro_batch_size(int64_t micro_batch_size) {
  config::set_train_micro_batch_size(
      state_->config, micro_batch_size, state_->ranks->size());
}

const config::Config& Engine::config() const {
  return state_->config;
}

comm::ProcessGroup& Engine::ranks() const {
  return *state_->ranks;
}

torch::nn::Module& Engine::module() const {
  return *state_->module;
}

std::vector<std::pair<std::string, at::Tensor>> Engine::fp32_parameters()
    const {
  const at::NoGradGuard no_grad;
  check_parameters(*state_);
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  for (const auto& group : state_->groups) {
    at::Tensor whole = at::zeros({group->padded()}, at::kFloat);
    whole.narrow(0, group->shard().offset, group->shard().size)
        .copy_(group->master());
    if (group->is_sharded()) {
      state_->ranks->all_gather(whole, group->bounds())->wait();
    }
    for (const flat::FlatEntry& entry : group->entries()) {
      parameters.emplace_back(entry.name, entry.view_of(whole));
    }
  }
  return parameters;
}

} // namespace deepspeed
