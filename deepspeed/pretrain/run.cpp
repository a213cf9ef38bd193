// A training run: what both training programs share around forward, backward
// and step.
#include "deepspeed/pretrain/run.h"

#include <cmath>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/optim/schedule.h"
#include "deepspeed/pretrain/evaluation.h"
#include "deepspeed/pretrain/model_files.h"
#include "deepspeed/pretrain/run_text.h"
#include "deepspeed/report/hparams.h"
#include "deepspeed/report/stop_signal.h"
#include "deepspeed/report/system_info.h"

namespace deepspeed::pretrain {
namespace {

constexpr int kGiveUpAfter = 10; // steps in a row that are not finite
constexpr int kFailedSaves = 3; // checkpoints in a row that were not written

// The settings of a resumed run; says what differs from the stored ones.
report::Settings resumed_settings(
    const report::Experiment& experiment,
    const report::Options& options) {
  const report::ResumedSettings resumed = report::resume_settings(
      report::read_hparams(experiment.hparams_path()), options);
  for (const report::SettingChange& change : resumed.changes) {
    base::log_info(
        "changed: " + change.name + " " + change.from + " -> " + change.to);
  }
  return resumed.settings;
}

} // namespace

std::string print_config(const report::Options& options) {
  report::Settings settings = options.settings;
  const std::string& resume_from = settings.folders.load_checkpoint_dir;
  if (!resume_from.empty()) {
    const std::string path =
        checkpoint::join(resume_from, checkpoint::kHparamsFile);
    settings =
        report::resume_settings(report::read_hparams(path), options).settings;
  }
  report::validate(settings);
  return report::to_hparams(settings);
}

Run::Run(const report::Options& options) : settings_(options.settings) {
  report::install_stop_signals();
  clock_.enter("start");
  const std::string& resume_from = settings_.folders.load_checkpoint_dir;
  if (!resume_from.empty()) {
    experiment_ = report::Experiment::open(resume_from);
    settings_ = resumed_settings(*experiment_, options);
  }
  report::validate(settings_);
  at::set_num_threads(
      settings_.machine.num_threads > 0
          ? static_cast<int>(settings_.machine.num_threads)
          : report::usable_cores());
  data_ = std::make_unique<Data>(settings_, bert::RobertaConfig{}.vocab_size);
  if (settings_.machine.dry_run) {
    experiment_.reset();
  } else if (resume_from.empty()) {
    experiment_ =
        report::Experiment::create(settings_.folders.checkpoint_dir, settings_);
    base::log_info("experiment folder: " + experiment_->path());
  }
}

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
  return settings_.machine.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

optim::AdamOptions Run::adam_options() const {
  const report::OptimizerSettings& o = settings_.optimizer;
  return {
      .beta1 = o.adam_beta1,
      .beta2 = o.adam_beta2,
      .eps = o.adam_epsilon,
      .weight_decay = o.weight_decay};
}

void Run::start(TrainedModel& trained) {
  trained_ = &trained;
  LoopState state;
  if (!settings_.folders.load_checkpoint_dir.empty()) {
    state = trained.load(settings_.folders.load_checkpoint_dir);
    base::log_info(
        "resuming after step " + std::to_string(state.step) + " of " +
        std::to_string(settings_.run.num_iterations));
    saved_step_ = state.step;
    if (experiment_) {
      // Not before: a run that cannot go on leaves the folder as it was.
      experiment_->save_settings(settings_);
    }
  }
  step_ = state.step;
  first_step_ = state.step;
  print_start_table();
  log_ = std::make_unique<RunLog>(
      experiment_ ? &*experiment_ : nullptr,
      state,
      settings_.run.num_iterations);
  const auto accumulation =
      static_cast<uint64_t>(settings_.optimizer.gradient_accumulation_steps);
  prefetcher_ = std::make_unique<text::Prefetcher>(
      [batches = data_->train().batches.get(), accumulation](uint64_t index) {
        return batches->make(index / accumulation, index % accumulation);
      },
      static_cast<uint64_t>(step_) * accumulation);
}

bool Run::last_step() const {
  return step_ >= settings_.run.num_iterations || report::stop_signal() != 0 ||
      (settings_.machine.dry_run && step_ > first_step_);
}

bool Run::next_step() {
  finite_ = true;
  gradient_norm_ = std::numeric_limits<double>::quiet_NaN();
  return !last_step();
}

std::shared_ptr<const bert::Batch> Run::next_batch() {
  clock_.enter("data");
  auto batch = std::make_shared<const bert::Batch>(prefetcher_->next());
  clock_.enter("compute");
  tokens_of_batch_ = batch->tokens();
  return batch;
}

void Run::add_loss(const at::Tensor& loss) {
  const double value = loss.item<double>();
  finite_ = finite_ && std::isfinite(value);
  log_->add_loss(value, tokens_of_batch_);
}

double Run::learning_rate() const {
  const report::OptimizerSettings& o = settings_.optimizer;
  return optim::Schedule{
      optim::parse_schedule_type(o.lr_scheduler_type),
      o.learning_rate,
      o.warmup_steps,
      settings_.run.num_iterations}
      .at(step_);
}

std::optional<double> Run::gradient_scale(
    const flat::FlatParameters& parameters) {
  const double max_norm = settings_.optimizer.max_grad_norm;
  if (max_norm > 0 || (step_ + 1) % settings_.run.log_every == 0) {
    gradient_norm_ = optim::gradient_norm(parameters);
  }
  // A norm that is only there to be logged decides nothing: the run must not
  // depend on --log_every.
  if (max_norm > 0) {
    finite_ = finite_ && std::isfinite(gradient_norm_);
  }
  if (finite_) {
    bad_steps_ = 0;
    return max_norm > 0 ? optim::clip_factor(gradient_norm_, max_norm) : 1.0;
  }
  log_->message(
      "warning: loss or gradient of step " + std::to_string(step_ + 1) +
      " is not finite: the update is left out");
  if (++bad_steps_ >= kGiveUpAfter) {
    throw base::Error(
        base::ExitCode::internal,
        "the loss was not finite for " + std::to_string(kGiveUpAfter) +
            " steps in a row",
        "step " + std::to_string(step_ + 1),
        "go on from the last checkpoint with a smaller --learning_rate or "
        "with --max_grad_norm 1");
  }
  return std::nullopt;
}

void Run::end_step() {
  StepFigures figures;
  figures.learning_rate = learning_rate();
  ++step_;
  figures.step = step_;
  figures.gradient_norm = gradient_norm_;
  figures.log = step_ % settings_.run.log_every == 0;
  log_->end_step(figures);
  const int64_t every = settings_.run.eval_every;
  if (every > 0 && step_ % every == 0) {
    evaluate_now();
  }
  if (step_ % settings_.run.checkpoint_every == 0) {
    save();
  }
  clock_.enter("compute");
}

void Run::evaluate_now() {
  const TextSource* validation = data_->validation();
  if (validation == nullptr || evaluated_step_ == step_) {
    return;
  }
  clock_.enter("evaluation");
  const bert::Evaluation result =
      evaluate(trained_->model(), *validation, settings_.optimizer.batch_size);
  evaluated_step_ = step_;
  if (result.masked > 0) {
    validation_loss_ = mean_loss(result);
    log_->evaluation(step_, result);
  }
}

// A checkpoint that cannot be written leaves the older ones as they are, and
// training goes on: there may be room again at the next one.
void Run::save() {
  if (!experiment_ || saved_step_ == step_) {
    return;
  }
  clock_.enter("checkpoint");
  try {
    trained_->save(experiment_->path(), log_->state(step_));
  } catch (const base::Error& error) {
    if (last_step() || ++failed_saves_ >= kFailedSaves) {
      throw;
    }
    log_->message(
        "warning: no checkpoint of step " + std::to_string(step_) +
        ", training goes on\n" + error.report());
    return;
  }
  failed_saves_ = 0;
  saved_step_ = step_;
  log_->message(
      "saved " +
      checkpoint::join(
          experiment_->path(), checkpoint::step_checkpoint_name(step_)));
  if (settings_.run.keep_last > 0) {
    checkpoint::keep_last(experiment_->path(), settings_.run.keep_last);
  }
}

void Run::print_start_table() {
  base::write_line(report::table(start_table(
      {settings_,
       *data_,
       *trained_,
       experiment_ ? experiment_->path() : "",
       first_step_})));
}

int Run::finish() {
  const int signal = report::stop_signal();
  if (settings_.machine.dry_run) {
    log_->finish();
    base::log_info("dry run: one step was made, nothing was written");
    return 0;
  }
  save();
  if (signal == 0) {
    evaluate_now();
    if (!settings_.run.export_dir.empty()) {
      clock_.enter("export");
      export_model(
          settings_.run.export_dir,
          trained_->model()->config(),
          trained_->weights(),
          *data_->tokenizer());
    }
  }
  clock_.stop();
  log_->finish();
  RunResult result{settings_, *data_, *trained_, *experiment_};
  result.first_step = first_step_;
  result.step = step_;
  result.loss = log_->last_loss();
  result.validation_loss = validation_loss_;
  result.phases = clock_.phases();
  result.signal = signal;
  write_report(result);
  base::write_line(report::end_summary(end_summary(result)));
  std::printf("experiment: %s\n", experiment_->path().c_str());
  return static_cast<int>(
      signal != 0 ? base::ExitCode::stopped : base::ExitCode::ok);
}

} // namespace deepspeed::pretrain
