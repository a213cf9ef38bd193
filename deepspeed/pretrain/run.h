// A training run: what both training programs share around forward, backward
// and step.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "deepspeed/comm/process_group.h"
#include "deepspeed/config/config.h"
#include "deepspeed/engine/engine.h"
#include "deepspeed/optim/skipped_steps.h"
#include "deepspeed/pretrain/data.h"
#include "deepspeed/pretrain/profiler.h"
#include "deepspeed/pretrain/run_folder.h"
#include "deepspeed/pretrain/run_log.h"
#include "deepspeed/pretrain/run_text.h"
#include "deepspeed/pretrain/step_checkpoint.h"
#include "deepspeed/report/experiment.h"
#include "deepspeed/report/phase_clock.h"
#include "deepspeed/settings/options.h"
#include "deepspeed/text/prefetcher.h"

namespace deepspeed::pretrain {

// The settings that a run with these options would have, as hparams.json.
std::string print_config(const settings::Options& options);

// Whether what a run has trained can be relied on.
struct Health {
  bool finite = true; // all losses of this step, on this rank
  optim::SkippedSteps bad_steps; // on any rank
  bool save_due = false; // a checkpoint waits for weights that are good
  std::shared_ptr<const bert::Batch> batch; // the last one
};

// Owns everything but the model and the optimizer: settings, experiment folder,
// data, logs, checkpoints, evaluation. Used like this:
//
//   run.start(trained);
//   while (run.next_step()) {
//     ... run.next_batch(), forward, backward, run.add_loss() ...
//     ... step ...
//     run.end_step();
//   }
//   return run.finish();
//
// Not thread-safe.
class Run {
 public:
  // Joins the ranks of the run, makes or opens the experiment folder and the
  // data. Throws base::Error.
  explicit Run(const settings::Options& options);
  ~Run();

  const settings::Settings& settings() const {
    return settings_;
  }
  bert::RobertaOptions model_options() const;
  at::ScalarType compute_dtype() const;
  optim::AdamOptions adam_options() const;
  // train_bert_ds: the engine's configuration, and what else it needs.
  const config::Config& engine_config() const {
    return *engine_config_;
  }
  InitializeOptions engine_options() const;

  // Loads the newest checkpoint of a resumed run into `trained`, and prints the
  // start table. `trained` must outlive the run.
  void start(TrainedModel& trained);

  // False at the end, or when a signal asked to stop.
  bool next_step();
  // The next micro batch of this step.
  std::shared_ptr<const bert::Batch> next_batch();
  void add_loss(const at::Tensor& loss);
  // After add_loss(): whether nothing but one update needs the gradients that
  // come next, so that it may begin as they come.
  bool updates_early() const;
  // Whether this step's gradient_scale() asks the optimizer for it.
  bool wants_gradient_norm() const;
  // What the gradients are to be multiplied by: 1, or less to clip them to
  // --max_grad_norm. Nothing if a loss or the norm to clip is not finite: then
  // the update is left out.
  std::optional<double> gradient_scale(const optim::Adam& optimizer);
  // Of this step's update.
  double learning_rate() const {
    return learning_rate_at(step_);
  }
  // Logs, evaluates and saves where it is due. A checkpoint is only made of
  // weights and moments that are finite, after a step whose losses were, and
  // that give a finite loss again: otherwise it waits for the next step that
  // is good. After 10 steps in a row that are not finite the run gives up with
  // an Error(internal).
  void end_step();
  // The same with the engine's figures.
  void end_step(double learning_rate, double gradient_norm);

  // The last checkpoint, evaluation, export, report and summary. Returns the
  // exit code: 0, or 75 after a signal.
  int finish();

 private:
  bool is_root() const {
    return ranks_->rank() == 0;
  }
  void join_ranks();
  void find_folder(const settings::Options& options);
  LoopState load();
  void set_threads();
  void open_experiment();
  void take_settings(const settings::Options& options);
  void open_data();
  int64_t global_batch() const; // samples of a step
  int64_t position_of(const LoopState& state) const;
  double learning_rate_at(int64_t steps_done) const;
  bool agree_on_losses();
  bool last_step() const;
  bool is_sound();
  void count_bad_steps(bool finite);
  void save_if_sound();
  void save_last();
  void save();
  void evaluate_now();
  void export_now();
  void print_start_table();
  void tell_memory_plan() const;
  void write_profile();
  Speed speed();

  settings::Settings settings_;
  std::shared_ptr<comm::ProcessGroup> ranks_;
  int local_ranks_ = 1; // on this host
  std::optional<config::Config> engine_config_;
  RunFolder run_folder_;
  std::string folder_; // of the experiment; empty in a dry run
  std::optional<report::Experiment> experiment_; // rank 0's, if any
  std::unique_ptr<Data> data_;
  std::unique_ptr<text::Prefetcher> prefetcher_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<Profiler> profiler_;
  report::PhaseClock clock_;
  TrainedModel* trained_ = nullptr;
  int64_t step_ = 0; // steps done; the current one is step_ + 1
  int64_t first_step_ = 0; // steps done before this run
  int64_t first_position_ = 0; // in the stream of samples, of this run
  std::optional<settings::Settings> stored_; // of the run that goes on
  int64_t saved_step_ = -1;
  int64_t evaluated_step_ = -1;
  int stop_ = 0; // the signal that asked one of the ranks to stop
  std::vector<double> losses_; // of this step on this rank
  int64_t tokens_ = 0; // of this step on this rank
  WorkDone work_; // of the run on this rank
  double gradient_norm_ = 0; // of this step; NaN if it was not computed
  std::optional<double> validation_loss_; // of the last evaluation
  Health health_;
  int failed_saves_ = 0; // in a row
};

} // namespace deepspeed::pretrain
