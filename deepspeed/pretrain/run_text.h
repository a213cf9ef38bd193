// What a run says about itself before its first and after its last step.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/config/config.h"
#include "deepspeed/pretrain/data.h"
#include "deepspeed/pretrain/step_checkpoint.h"
#include "deepspeed/report/experiment.h"
#include "deepspeed/report/summary.h"

namespace deepspeed::pretrain {

struct RunStart {
  const settings::Settings& settings;
  const Data& data;
  const TrainedModel& trained;
  std::string experiment; // empty in a dry run
  int ranks = 1;
  std::string transport; // how ranks speak to each other
  int64_t first_step = 0; // steps done before
  const config::Config* engine = nullptr; // of train_bert_ds
};

report::Rows start_table(const RunStart& run);

// Of all ranks together, a second of training: without checkpoints and
// evaluations.
struct Speed {
  double tokens = 0; // 0: no step was made
  double flops = 0;
  double peak = 0; // flops that matrix products reach; 0: not measured
};

struct RunResult {
  const settings::Settings& settings;
  const Data& data;
  const TrainedModel& trained;
  const report::Experiment& experiment;
  int64_t first_step = 0;
  int64_t step = 0;
  std::optional<double> loss; // of the last log line
  std::optional<double> validation_loss;
  std::vector<std::pair<std::string, double>> phases; // name, seconds
  Speed speed;
  int signal = 0; // that stopped it
  bool saved = true; // the last step
};

report::EndSummary end_summary(const RunResult& result);

// report.html and loss_curve.svg in the experiment folder. A report that cannot
// be written gives a warning.
void write_report(const RunResult& result);

// What to type after steps that were not finite: the last good checkpoint (none
// if `saved_step` is negative) with a learning rate that is likely to work.
std::string recovery_hint(
    const settings::Settings& settings,
    const std::string& folder,
    int64_t saved_step);

} // namespace deepspeed::pretrain
