// For report_parity.py: writes the files of a short run into a new experiment
// folder and prints its path.
// usage: report_driver FOLDER
#include <cmath>
#include <cstdio>
#include <limits>

#include "deepspeed/base/error.h"
#include "deepspeed/report/event_file.h"
#include "deepspeed/report/experiment.h"
#include "deepspeed/report/metrics.h"

namespace {

using namespace deepspeed;

void write_steps(
    const report::Experiment& experiment,
    int64_t first,
    int64_t last) {
  report::EventFile events(experiment.events_path());
  report::MetricsFile metrics(experiment.metrics_path(), first);
  for (int64_t step = first + 1; step <= last; ++step) {
    const double loss = 6 + 5 * std::exp(-0.01 * static_cast<double>(step));
    events.add_scalar("Train/loss", loss, step);
    events.add_scalar("Train/lr", 1e-4, step);
    metrics.append({step, {{"loss", loss}, {"lr", 1e-4}}});
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  events.add_scalar("Eval/loss", last == 300 ? nan : 1.5, last);
  metrics.append({last, {{"eval_loss", last == 300 ? nan : 1.5}}});
}

int run(const std::string& folder) {
  settings::Settings settings;
  settings.data.dataset = "d\xc3\xa9j\xc3\xa0 \"vu\"\n\xf0\x9f\x91\x8d\x7f";
  settings.optimizer.learning_rate = 1.0 / 3;
  settings.optimizer.weight_decay = 1e22;
  settings.run.seed = std::numeric_limits<int64_t>::max();
  const auto experiment =
      report::Experiment::create(report::new_experiment_path(folder), settings);
  write_steps(experiment, 0, 200);
  write_steps(experiment, 200, 300); // a resumed run
  std::printf("%s\n", experiment.path().c_str());
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&]() -> int {
    if (argc != 2) {
      throw base::Error(
          base::ExitCode::usage, "usage: report_driver FOLDER", "", "");
    }
    return run(argv[1]);
  });
}
