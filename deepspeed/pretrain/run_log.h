// What a run tells while it trains: screen, metrics.jsonl, TensorBoard.
#pragma once

#include <chrono>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/pretrain/step_checkpoint.h"
#include "deepspeed/report/event_file.h"
#include "deepspeed/report/experiment.h"
#include "deepspeed/report/metrics.h"
#include "deepspeed/report/progress.h"

namespace deepspeed::pretrain {

// What is known of one step.
struct StepFigures {
  int64_t step = 0;
  double learning_rate = 0;
  double gradient_norm = std::numeric_limits<double>::quiet_NaN();
  bool log = false; // a line is due
};

// Not thread-safe.
class RunLog {
 public:
  // `experiment` is null for a dry run: then the screen is all. `start` is what
  // the checkpoint held: the mean loss of a log line does not know of resumes.
  // `quiet`: nothing on the screen either, for ranks other than 0.
  RunLog(
      const report::Experiment* experiment,
      const LoopState& start,
      int64_t total_steps,
      bool quiet = false);

  // The losses of a step's micro batches, those that are finite.
  void add_losses(double sum, int64_t count, int64_t tokens);
  // After the update.
  void end_step(const StepFigures& figures);
  void evaluation(int64_t step, const bert::Evaluation& evaluation);
  // Time spent since the last log line was not training.
  void restart_clock();
  void message(const std::string& text) {
    progress_.message(text);
  }
  void finish();

  // The mean loss of the last log line of this run.
  std::optional<double> last_loss() const {
    return last_loss_;
  }
  // For a checkpoint after `step`.
  LoopState state(int64_t step) const {
    return {step, loss_sum_, loss_count_};
  }

 private:
  void write(const report::MetricsRecord& record);
  void add_scalars(
      int64_t step,
      std::initializer_list<std::pair<const char*, double>> scalars);
  double take_tokens_per_second();

  std::optional<report::EventFile> events_;
  std::optional<report::MetricsFile> metrics_;
  report::Progress progress_;
  double loss_sum_; // since the last log line
  int64_t loss_count_;
  std::optional<double> last_loss_;
  int64_t tokens_ = 0; // since the last log line
  std::chrono::steady_clock::time_point since_;
};

} // namespace deepspeed::pretrain
