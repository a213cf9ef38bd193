// What a run tells while it trains: screen, metrics.jsonl, TensorBoard.
#include "deepspeed/pretrain/run_log.h"

#include <cmath>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/pretrain/evaluation.h"

namespace deepspeed::pretrain {
namespace {

report::ProgressOptions progress_options(
    int64_t first_step,
    int64_t total_steps,
    bool quiet) {
  report::ProgressOptions options =
      report::progress_on_stderr(first_step, total_steps);
  if (quiet) {
    options.columns = 0;
    options.write = [](std::string_view) {};
  }
  return options;
}

// A curve is not worth a run.
template <typename Open>
void open_or_warn(Open open) {
  try {
    open();
  } catch (const base::Error& error) {
    base::log_warning(
        std::string(error.what()) + ": " + error.where() +
        "; training goes on without this file");
  }
}

} // namespace

RunLog::RunLog(
    const report::Experiment* experiment,
    const LoopState& start,
    int64_t total_steps,
    bool quiet)
    : progress_(progress_options(start.step, total_steps, quiet)),
      loss_sum_(start.loss_sum),
      loss_count_(start.loss_count),
      since_(std::chrono::steady_clock::now()) {
  if (experiment != nullptr) {
    open_or_warn([&] {
      events_.emplace(experiment->events_path());
      events_->start_after(start.step);
    });
    open_or_warn(
        [&] { metrics_.emplace(experiment->metrics_path(), start.step); });
  }
}

void RunLog::add_losses(double sum, int64_t count, int64_t tokens) {
  tokens_ += tokens;
  loss_sum_ += sum;
  loss_count_ += count;
}

double RunLog::take_tokens_per_second() {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - since_).count();
  const double rate = static_cast<double>(tokens_) / seconds;
  since_ = now;
  tokens_ = 0;
  return rate;
}

void RunLog::end_step(const StepFigures& figures) {
  const double loss = loss_sum_ / static_cast<double>(loss_count_);
  report::StepStatus status;
  status.step = figures.step;
  status.loss = loss;
  status.learning_rate = figures.learning_rate;
  if (std::isfinite(figures.gradient_norm)) {
    status.grad_norm = figures.gradient_norm;
  }
  if (figures.log) {
    const double rate = take_tokens_per_second();
    const uint64_t memory = machine::peak_memory();
    status.tokens_per_second = rate;
    status.memory_bytes = memory;
    write(
        {figures.step,
         {{"loss", loss},
          {"lr", figures.learning_rate},
          {"grad_norm", figures.gradient_norm},
          {"tokens_per_second", rate},
          {"peak_memory_bytes", static_cast<double>(memory)}}});
    add_scalars(
        figures.step,
        {{"Train/loss", loss},
         {"Train/lr", figures.learning_rate},
         {"Train/grad_norm", figures.gradient_norm},
         {"Train/tokens_per_second", rate}});
    last_loss_ = loss;
    loss_sum_ = 0;
    loss_count_ = 0;
  }
  progress_.step(status, figures.log);
}

void RunLog::add_scalars(
    int64_t step,
    std::initializer_list<std::pair<const char*, double>> scalars) {
  if (events_) {
    for (const auto& [tag, value] : scalars) {
      events_->add_scalar(tag, value, step);
    }
    events_->flush();
  }
}

void RunLog::write(const report::MetricsRecord& record) {
  if (metrics_) {
    metrics_->append(record);
  }
}

void RunLog::evaluation(int64_t step, const bert::Evaluation& evaluation) {
  const double loss = mean_loss(evaluation);
  const double perplexity = std::exp(loss);
  const double accuracy = static_cast<double>(evaluation.correct) /
      static_cast<double>(evaluation.masked);
  write(
      {step,
       {{"eval_loss", loss},
        {"eval_perplexity", perplexity},
        {"eval_accuracy", accuracy}}});
  add_scalars(
      step,
      {{"Eval/loss", loss},
       {"Eval/perplexity", perplexity},
       {"Eval/accuracy", accuracy}});
  char text[160];
  std::snprintf(
      text,
      sizeof text,
      "eval after step %lld | loss %.4f | perplexity %.1f | accuracy %.2f %% "
      "of %lld masked tokens",
      static_cast<long long>(step),
      loss,
      perplexity,
      100 * accuracy,
      static_cast<long long>(evaluation.masked));
  progress_.message(text);
  restart_clock();
}

void RunLog::restart_clock() {
  since_ = std::chrono::steady_clock::now();
  tokens_ = 0;
}

void RunLog::finish() {
  progress_.finish();
}

} // namespace deepspeed::pretrain
