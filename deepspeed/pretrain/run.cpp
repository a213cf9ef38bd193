// A training run: what both training programs share around forward, backward
// and step.
#include "deepspeed/pretrain/run.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "deepspeed/base/atomic_file.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/engine/agree.h"
#include "deepspeed/optim/schedule.h"
#include "deepspeed/pretrain/engine_config.h"
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
    const std::string& path,
    const report::Options& options,
    const report::Settings& defaults) {
  const report::ResumedSettings resumed =
      report::resume_settings(report::read_hparams(path, defaults), options);
  for (const report::SettingChange& change : resumed.changes) {
    base::log_info(
        "changed: " + change.name + " " + change.from + " -> " + change.to);
  }
  return resumed.settings;
}

report::Settings defaults_of(const report::Options& options) {
  return options.settings.engine.enabled ? report::engine_defaults()
                                         : report::Settings();
}

std::string hparams_of(const std::string& folder) {
  return checkpoint::join(folder, checkpoint::kHparamsFile);
}

// The folder that a restarted run goes on in: the launcher names a file to all
// its tries, and the first try wrote its folder there.
std::string restarted_folder() {
  const char* restarts = std::getenv("DS_RESTART_COUNT");
  const char* file = std::getenv("DS_RESUME_FILE");
  if (restarts == nullptr || std::string(restarts) == "0" || file == nullptr) {
    return "";
  }
  std::error_code error;
  if (std::filesystem::file_size(file, error) == 0 || error) {
    return "";
  }
  const std::string folder = base::read_file(file, 1 << 16);
  return std::filesystem::exists(
             checkpoint::join(folder, checkpoint::kLatestFile), error)
      ? folder
      : "";
}

void name_resume_folder(const std::string& folder) {
  const char* file = std::getenv("DS_RESUME_FILE");
  if (file != nullptr) {
    base::write_file_atomically(file, folder);
  }
}

} // namespace

std::string print_config(const report::Options& options) {
  report::Settings settings = options.settings;
  const std::string& resume_from = settings.folders.load_checkpoint_dir;
  if (!resume_from.empty()) {
    settings =
        report::resume_settings(
            report::read_hparams(hparams_of(resume_from), defaults_of(options)),
            options)
            .settings;
  }
  report::validate(settings);
  if (!settings.engine.enabled) {
    return report::to_hparams(settings);
  }
  const int64_t ranks = comm::rank_from_environment().world_size;
  const config::Config config = engine_config(settings, options.given, ranks);
  adopt_config(config, settings);
  return report::to_hparams(settings) + "\n" + config::print_config(config);
}

Run::Run(const report::Options& options) : settings_(options.settings) {
  clock_.enter("start");
  report::validate(settings_);
  join_ranks();
  // Not before: a rank that waits for others ends at once.
  report::install_stop_signals(/*speak=*/is_root());
  const std::string restarted = restarted_folder();
  if (!restarted.empty()) {
    settings_.folders = {"", restarted};
  }
  const std::string resume_from = settings_.folders.load_checkpoint_dir;
  agree(*ranks_, [&] {
    if (!resume_from.empty()) {
      if (is_root()) {
        experiment_ = report::Experiment::open(resume_from);
      }
      report::Options resumed = options;
      resumed.settings.folders = settings_.folders;
      settings_ = resumed_settings(
          hparams_of(resume_from), resumed, defaults_of(options));
    }
    report::validate(settings_);
    if (settings_.engine.enabled) {
      engine_config_ =
          pretrain::engine_config(settings_, options.given, ranks_->size());
      adopt_config(*engine_config_, settings_);
    }
  });
  set_threads();
  ranks_->require_equal("the settings", report::to_hparams(settings_));
  agree(*ranks_, [&] {
    data_ = std::make_unique<Data>(
        settings_, bert::RobertaConfig{}.vocab_size, ranks_->size());
  });
  open_experiment();
}

void Run::join_ranks() {
  comm::RankInfo info;
  if (settings_.engine.enabled) {
    info = comm::rank_from_environment();
  }
  base::set_quiet(info.rank != 0);
  local_ranks_ = info.local_world_size;
  ranks_ = comm::make_process_group(info);
}

void Run::set_threads() {
  // A launcher that has shared out the cores says so.
  const int cores = std::getenv("OMP_NUM_THREADS") != nullptr
      ? at::get_num_threads()
      : std::max(1, report::usable_cores() / local_ranks_);
  at::set_num_threads(
      settings_.machine.num_threads > 0
          ? static_cast<int>(settings_.machine.num_threads)
          : cores);
}

// One folder for all ranks: rank 0 makes it.
void Run::open_experiment() {
  if (settings_.machine.dry_run) {
    experiment_.reset();
    return;
  }
  agree(*ranks_, [&] {
    if (is_root() && !experiment_) {
      experiment_ = report::Experiment::create(
          settings_.folders.checkpoint_dir, settings_);
      name_resume_folder(experiment_->path());
      base::log_info("experiment folder: " + experiment_->path());
    }
  });
  folder_ = ranks_->broadcast_text(experiment_ ? experiment_->path() : "", 0);
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
      settings_.run.num_iterations,
      /*quiet=*/!is_root());
  const auto accumulation =
      static_cast<uint64_t>(settings_.optimizer.gradient_accumulation_steps);
  prefetcher_ = std::make_unique<text::Prefetcher>(
      [batches = data_->train().batches.get(),
       accumulation,
       rank = static_cast<uint64_t>(ranks_->rank())](uint64_t index) {
        return batches->make(index / accumulation, index % accumulation, rank);
      },
      static_cast<uint64_t>(step_) * accumulation);
}

bool Run::last_step() const {
  return step_ >= settings_.run.num_iterations || stop_ != 0 ||
      (settings_.machine.dry_run && step_ > first_step_);
}

std::vector<double> Run::gather(std::vector<double> own) {
  const auto n = static_cast<int64_t>(own.size());
  at::Tensor all = at::zeros({ranks_->size() * n}, at::kDouble);
  double* data = all.data_ptr<double>();
  std::copy(own.begin(), own.end(), data + ranks_->rank() * n);
  std::vector<int64_t> bounds;
  for (int rank = 0; rank <= ranks_->size(); ++rank) {
    bounds.push_back(rank * n);
  }
  ranks_->all_gather(all, bounds)->wait();
  return {data, data + all.numel()};
}

bool Run::next_step() {
  for (const double signal :
       gather({static_cast<double>(report::stop_signal())})) {
    stop_ = stop_ != 0 ? stop_ : static_cast<int>(signal);
  }
  losses_.clear();
  tokens_ = 0;
  finite_ = true;
  gradient_norm_ = std::numeric_limits<double>::quiet_NaN();
  return !last_step();
}

std::shared_ptr<const bert::Batch> Run::next_batch() {
  clock_.enter("data");
  auto batch = std::make_shared<const bert::Batch>(prefetcher_->next());
  clock_.enter("compute");
  tokens_ += batch->tokens();
  return batch;
}

void Run::add_loss(const at::Tensor& loss) {
  losses_.push_back(loss.item<double>());
  finite_ = finite_ && std::isfinite(losses_.back());
}

// The log shows the mean over all ranks.
void Run::agree_on_losses() {
  double sum = 0;
  double count = 0;
  for (const double loss : losses_) {
    if (std::isfinite(loss)) {
      sum += loss;
      ++count;
    }
  }
  const std::vector<double> all =
      gather({sum, count, static_cast<double>(tokens_)});
  for (size_t i = 0; i < all.size(); i += 3) {
    log_->add_losses(
        all[i],
        static_cast<int64_t>(all[i + 1]),
        static_cast<int64_t>(all[i + 2]));
  }
}

double Run::learning_rate_at(int64_t steps_done) const {
  const report::OptimizerSettings& o = settings_.optimizer;
  return optim::Schedule{
      optim::parse_schedule_type(o.lr_scheduler_type),
      o.learning_rate,
      o.warmup_steps,
      settings_.run.num_iterations}
      .at(steps_done);
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
  end_step(learning_rate(), gradient_norm_);
}

void Run::end_step(double learning_rate, double gradient_norm) {
  agree_on_losses();
  StepFigures figures;
  figures.learning_rate = learning_rate;
  ++step_;
  figures.step = step_;
  figures.gradient_norm = gradient_norm;
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
  const bert::Evaluation own = evaluate(
      trained_->model(),
      *validation,
      settings_.optimizer.batch_size,
      ranks_->rank(),
      ranks_->size());
  const std::vector<double> all = gather(
      {own.loss_sum,
       static_cast<double>(own.masked),
       static_cast<double>(own.correct)});
  bert::Evaluation result;
  for (size_t i = 0; i < all.size(); i += 3) {
    result.loss_sum += all[i];
    result.masked += static_cast<int64_t>(all[i + 1]);
    result.correct += static_cast<int64_t>(all[i + 2]);
  }
  evaluated_step_ = step_;
  if (result.masked > 0) {
    validation_loss_ = mean_loss(result);
    log_->evaluation(step_, result);
  }
}

// A checkpoint that cannot be written leaves the older ones as they are, and
// training goes on: there may be room again at the next one.
void Run::save() {
  if (folder_.empty() || saved_step_ == step_) {
    return;
  }
  clock_.enter("checkpoint");
  try {
    trained_->save(folder_, log_->state(step_));
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
       first_step_})));
}

int Run::finish() {
  const int signal = stop_;
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
      const auto weights = trained_->weights();
      agree(*ranks_, [&] {
        if (is_root()) {
          export_model(
              settings_.run.export_dir,
              trained_->model()->config(),
              weights,
              *data_->tokenizer());
        }
      });
    }
  }
  clock_.stop();
  log_->finish();
  const int code = static_cast<int>(
      signal != 0 ? base::ExitCode::stopped : base::ExitCode::ok);
  if (!is_root()) {
    return code;
  }
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
  return code;
}

} // namespace deepspeed::pretrain
