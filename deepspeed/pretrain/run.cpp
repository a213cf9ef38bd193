// A training run: what both training programs share around forward, backward
// and step.
#include "deepspeed/pretrain/run.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/trace.h"
#include "deepspeed/bert/flops.h"
#include "deepspeed/checkpoint/commit.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/comm/gather.h"
#include "deepspeed/machine/stop_signal.h"
#include "deepspeed/optim/schedule.h"
#include "deepspeed/pretrain/evaluation.h"
#include "deepspeed/pretrain/model_files.h"
#include "deepspeed/pretrain/run_text.h"

namespace deepspeed::pretrain {
namespace {

constexpr int kFailedSaves = 3; // checkpoints in a row that were not written

} // namespace

Run::~Run() = default;

bert::RobertaOptions Run::model_options() const {
  bert::RobertaOptions options;
  options.config = model_config(settings_.model);
  options.implementation = settings_.machine.implementation == "reference"
      ? bert::Implementation::reference
      : bert::Implementation::fast;
  options.seed = static_cast<uint64_t>(settings_.run.seed);
  return options;
}

at::ScalarType Run::compute_dtype() const {
  const std::string& dtype = settings_.machine.dtype;
  return dtype == "bf16" ? at::kBFloat16
      : dtype == "fp16"  ? at::kHalf
                         : at::kFloat;
}

InitializeOptions Run::engine_options() const {
  InitializeOptions options;
  options.ranks = ranks_;
  if (engine_config_->scheduler.type == config::SchedulerType::none) {
    options.learning_rate = [this](int64_t steps) {
      return learning_rate_at(steps);
    };
  }
  return options;
}

optim::AdamOptions Run::adam_options() const {
  const settings::OptimizerSettings& o = settings_.optimizer;
  return {
      .beta1 = o.adam_beta1,
      .beta2 = o.adam_beta2,
      .eps = o.adam_epsilon,
      .weight_decay = o.weight_decay};
}

void Run::start(TrainedModel& trained) {
  trained_ = &trained;
  if (experiment_ && experiment_->is_locked()) {
    checkpoint::sweep_unfinished(experiment_->path());
  }
  LoopState state;
  if (run_folder_.loads()) {
    state = load();
    saved_step_ = state.step;
  }
  step_ = state.step;
  first_step_ = state.step;
  first_position_ = position_of(state);
  print_start_table();
  const bool dry_run = settings_.machine.dry_run;
  ProfilerOptions profile{settings_.machine.profile, step_};
  profile.last_step = dry_run ? step_ + 1 : settings_.run.num_iterations;
  profile.dtype = compute_dtype();
  profile.path =
      dry_run ? "" : checkpoint::join(folder_, checkpoint::kProfileFile);
  profiler_ = std::make_unique<Profiler>(profile, *ranks_);
  log_ = std::make_unique<RunLog>(
      experiment_ ? &*experiment_ : nullptr,
      state,
      settings_.run.num_iterations,
      /*quiet=*/!is_root());
  prefetcher_ = std::make_unique<text::Prefetcher>(
      data_->train().batches->training(
          static_cast<uint64_t>(first_position_),
          static_cast<uint64_t>(ranks_->rank())),
      /*first=*/0);
}

int64_t Run::global_batch() const {
  const settings::OptimizerSettings& o = settings_.optimizer;
  return o.batch_size * o.gradient_accumulation_steps * ranks_->size();
}

// Steps may have had other global batches than this run's; what was trained on
// is neither seen again nor passed over.
int64_t Run::position_of(const LoopState& state) const {
  int64_t position = state.samples;
  if (position < 0) { // a checkpoint of before it was kept
    const settings::OptimizerSettings& o =
        (stored_ ? *stored_ : settings_).optimizer;
    position =
        state.step * o.batch_size * o.gradient_accumulation_steps * state.ranks;
  }
  if (position != state.step * global_batch()) {
    base::log_info(
        "the data go on after " + std::to_string(position) +
        " samples: " + std::to_string(state.step) + " steps were not all of " +
        std::to_string(global_batch()) + " samples, as they are now");
  }
  return position;
}

bool Run::last_step() const {
  return step_ >= settings_.run.num_iterations || stop_ != 0 ||
      (settings_.machine.dry_run && step_ > first_step_);
}

bool Run::next_step() {
  for (const int signal : comm::gather(*ranks_, machine::stop_signal())) {
    stop_ = stop_ != 0 ? stop_ : signal;
  }
  losses_.clear();
  tokens_ = 0;
  health_.finite = true;
  gradient_norm_ = std::numeric_limits<double>::quiet_NaN();
  if (profiler_->is_complete(step_)) {
    write_profile();
  }
  if (last_step()) {
    return false;
  }
  profiler_->begin_step(step_, work_);
  return true;
}

std::shared_ptr<const bert::Batch> Run::next_batch() {
  clock_.enter("data");
  auto batch = std::make_shared<const bert::Batch>(prefetcher_->next());
  clock_.enter("compute");
  health_.batch = batch;
  tokens_ += batch->tokens();
  work_.tokens += static_cast<double>(batch->tokens());
  work_.flops += bert::training_flops(model_config(settings_.model), *batch);
  return batch;
}

void Run::add_loss(const at::Tensor& loss) {
  losses_.push_back(loss.item<double>());
  health_.finite = health_.finite && std::isfinite(losses_.back());
}

// The log shows the mean over all ranks. Whether the step was finite on all.
bool Run::agree_on_losses() {
  const base::Span span({"gather", "losses"});
  struct Losses {
    double sum = 0;
    int64_t count = 0;
    int64_t tokens = 0;
    bool finite = true;
  } own{.tokens = tokens_, .finite = health_.finite};
  for (const double loss : losses_) {
    if (std::isfinite(loss)) {
      own.sum += loss;
      ++own.count;
    }
  }
  bool finite = true;
  for (const Losses& rank : comm::gather(*ranks_, own)) {
    log_->add_losses(rank.sum, rank.count, rank.tokens);
    finite = finite && rank.finite;
  }
  return finite;
}

double Run::learning_rate_at(int64_t steps_done) const {
  const settings::OptimizerSettings& o = settings_.optimizer;
  return optim::Schedule{
      optim::parse_schedule_type(o.lr_scheduler_type),
      o.learning_rate,
      o.warmup_steps,
      settings_.run.num_iterations}
      .at(steps_done);
}

bool Run::wants_gradient_norm() const {
  return settings_.optimizer.max_grad_norm > 0 ||
      (step_ + 1) % settings_.run.log_every == 0;
}

bool Run::updates_early() const {
  return settings_.optimizer.gradient_accumulation_steps == 1 &&
      health_.finite && settings_.optimizer.max_grad_norm == 0;
}

std::optional<double> Run::gradient_scale(const optim::Adam& optimizer) {
  const double max_norm = settings_.optimizer.max_grad_norm;
  if (wants_gradient_norm()) {
    gradient_norm_ = optimizer.gradient_norm();
  }
  // A norm that is only there to be logged decides nothing: the run must not
  // depend on --log_every.
  if (max_norm > 0) {
    health_.finite = health_.finite && std::isfinite(gradient_norm_);
  }
  if (!health_.finite) {
    return std::nullopt;
  }
  return max_norm > 0 ? optim::clip_factor(gradient_norm_, max_norm) : 1.0;
}

void Run::count_bad_steps(bool finite) {
  health_.bad_steps.count(!finite);
  if (finite) {
    return;
  }
  // The engine says itself which updates it leaves out.
  log_->message(
      "warning: loss or gradient of step " + std::to_string(step_) +
      " is not finite" +
      (settings_.engine.enabled ? "" : ": the update is left out"));
  if (health_.bad_steps.is_hopeless()) {
    throw base::Error(
        base::ExitCode::internal,
        "the loss was not finite for " +
            std::to_string(health_.bad_steps.in_a_row()) + " steps in a row",
        "step " + std::to_string(step_),
        recovery_hint(settings_, folder_, saved_step_));
  }
}

void Run::end_step() {
  end_step(learning_rate(), gradient_norm_);
}

void Run::end_step(double learning_rate, double gradient_norm) {
  const bool finite = agree_on_losses();
  StepFigures figures;
  figures.learning_rate = learning_rate;
  ++step_;
  figures.step = step_;
  figures.gradient_norm = gradient_norm;
  figures.log = step_ % settings_.run.log_every == 0;
  {
    const base::Span span({"log"});
    log_->end_step(figures);
  }
  profiler_->end_step();
  count_bad_steps(finite);
  const int64_t every = settings_.run.eval_every;
  if (every > 0 && step_ % every == 0) {
    evaluate_now();
  }
  save_if_sound();
  clock_.enter("compute");
}

void Run::evaluate_now() {
  const TextSource* validation = data_->validation();
  if (validation == nullptr || evaluated_step_ == step_) {
    return;
  }
  clock_.enter("evaluation");
  const base::Span span({"evaluation"});
  const bert::Evaluation own = evaluate(
      trained_->model(),
      *validation,
      settings_.optimizer.batch_size,
      ranks_->rank(),
      ranks_->size(),
      [] { return machine::stop_signal() != 0; });
  struct Part {
    bert::Evaluation evaluation;
    int signal = 0;
  };
  bert::Evaluation result;
  for (const Part& part :
       comm::gather(*ranks_, Part{own, machine::stop_signal()})) {
    result.loss_sum += part.evaluation.loss_sum;
    result.masked += part.evaluation.masked;
    result.correct += part.evaluation.correct;
    stop_ = stop_ != 0 ? stop_ : part.signal;
  }
  if (stop_ != 0) {
    return; // a half evaluation is none
  }
  evaluated_step_ = step_;
  if (result.masked > 0) {
    validation_loss_ = mean_loss(result);
    log_->evaluation(step_, result);
  }
}

// The loss of a step is that of the weights before it: whether an update was
// any good, the next loss tells. So the last batch is tried again before its
// weights take the place of a checkpoint that was good.
bool Run::is_sound() {
  bool sound = health_.bad_steps.in_a_row() == 0 && trained_->is_finite();
  if (sound && health_.batch != nullptr) {
    sound = std::isfinite(trained_->model()->evaluate(health_.batch).loss_sum);
  }
  for (const int rank : comm::gather<int>(*ranks_, sound)) {
    sound = sound && rank != 0;
  }
  return sound;
}

void Run::save_if_sound() {
  const bool now_due = step_ % settings_.run.checkpoint_every == 0;
  health_.save_due = health_.save_due || now_due;
  if (folder_.empty() || !health_.save_due) {
    return;
  }
  clock_.enter("checkpoint");
  if (is_sound()) {
    save();
  } else if (now_due) {
    log_->message(
        "warning: no checkpoint of step " + std::to_string(step_) +
        ": its weights or its loss are not finite; the older ones stay");
  }
}

// What is not good is neither saved nor exported.
void Run::save_last() {
  if (folder_.empty() || saved_step_ == step_) {
    return;
  }
  clock_.enter("checkpoint");
  if (is_sound()) {
    save();
    return;
  }
  const std::string what = "no checkpoint of step " + std::to_string(step_) +
      ": its weights or its loss are not finite";
  if (stop_ != 0) {
    log_->message("warning: " + what + "; the older ones stay");
    return;
  }
  throw base::Error(
      base::ExitCode::internal,
      what,
      folder_,
      recovery_hint(settings_, folder_, saved_step_));
}

// A checkpoint that cannot be written leaves the older ones as they are, and
// training goes on: there may be room again at the next one.
void Run::save() {
  health_.save_due = false;
  const base::Span span({"checkpoint"});
  try {
    LoopState state = log_->state(step_);
    state.samples = first_position_ + (step_ - first_step_) * global_batch();
    trained_->save(folder_, state);
  } catch (const base::Error& error) {
    if (last_step() || ++failed_saves_ >= kFailedSaves) {
      // That a file cannot be made is a failed save as any other.
      throw error.code() == base::ExitCode::cannot_create
          ? base::Error(
                base::ExitCode::io, error.what(), error.where(), error.hint())
          : error;
    }
    log_->message(
        "warning: no checkpoint of step " + std::to_string(step_) +
        ", training goes on\n" + error.report());
    return;
  }
  failed_saves_ = 0;
  saved_step_ = step_;
  log_->message(
      "saved " + checkpoint::join(folder_, trained_->checkpoint_name(step_)));
}

void Run::print_start_table() {
  if (!is_root()) {
    return;
  }
  base::write_line(report::table(start_table(
      {settings_,
       *data_,
       *trained_,
       folder_,
       ranks_->size(),
       ranks_->name(),
       first_step_,
       engine_config_ ? &*engine_config_ : nullptr})));
}

void Run::write_profile() {
  if (!profiler_->is_running()) {
    return;
  }
  clock_.enter("profile");
  profiler_->write(step_, work_);
  log_->restart_clock();
  clock_.enter("compute");
}

Speed Run::speed() {
  double own_seconds = 0;
  for (const auto& [phase, time] : clock_.phases()) {
    own_seconds += phase == "data" || phase == "compute" ? time : 0;
  }
  struct Part {
    double seconds = 0;
    WorkDone work;
  };
  double seconds = 0; // of the slowest
  Speed speed;
  for (const Part& part : comm::gather(*ranks_, Part{own_seconds, work_})) {
    seconds = std::max(seconds, part.seconds);
    speed.tokens += part.work.tokens;
    speed.flops += part.work.flops;
  }
  if (speed.tokens > 0) {
    speed.tokens /= seconds;
    speed.flops /= seconds;
  }
  speed.peak = profiler_->peak();
  return speed;
}

void Run::export_now() {
  if (settings_.run.export_dir.empty()) {
    return;
  }
  clock_.enter("export");
  const auto weights = trained_->weights();
  comm::agree_at_root(*ranks_, [&] {
    export_model(
        settings_.run.export_dir,
        trained_->model()->config(),
        weights,
        *data_->tokenizer());
  });
}

int Run::finish() {
  if (settings_.machine.dry_run) {
    write_profile();
    log_->finish();
    base::log_info("dry run: one step was made, nothing was written");
    return 0;
  }
  save_last();
  if (stop_ == 0) {
    evaluate_now();
  }
  const int signal = stop_; // the evaluation may have been stopped
  if (signal == 0) {
    export_now();
  }
  write_profile();
  clock_.stop();
  log_->finish();
  const Speed run_speed = speed();
  const int code = static_cast<int>(
      signal != 0 ? base::ExitCode::stopped : base::ExitCode::ok);
  if (!is_root()) {
    return code;
  }
  RunResult result{settings_, *data_, *trained_, *experiment_};
  result.speed = run_speed;
  result.first_step = first_step_;
  result.step = step_;
  result.loss = log_->last_loss();
  result.validation_loss = validation_loss_;
  result.phases = clock_.phases();
  result.signal = signal;
  result.saved = saved_step_ == step_;
  write_report(result);
  base::write_line(report::end_summary(end_summary(result)));
  std::printf("experiment: %s\n", experiment_->path().c_str());
  return code;
}

} // namespace deepspeed::pretrain
