// The progress of a run on the screen: all text for people goes to standard
// error. Standard output has one line for scripts, "experiment: PATH", at the
// end of a run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace deepspeed::report {

// What is known after a step; the rest is not shown.
struct StepStatus {
  int64_t step = 0; // steps done
  std::optional<double> loss; // mean since the last log line
  std::optional<double> learning_rate;
  std::optional<double> grad_norm;
  std::optional<double> tokens_per_second;
  uint64_t memory_bytes = 0; // 0: not known
};

struct ProgressOptions {
  int64_t first_step = 0; // steps done before this run
  int64_t total_steps = 0;
  // Columns of the terminal; 0: not a terminal, lines only.
  int columns = 0;
  // Where text goes, and the time in seconds: others in tests.
  std::function<void(std::string_view)> write;
  std::function<double()> now;
};

// For standard error as it is: a terminal that can redraw a line, or a file.
// TERM=dumb is not such a terminal.
ProgressOptions progress_on_stderr(int64_t first_step, int64_t total_steps);

// On a terminal one status line, redrawn at most 5 times a second. Elsewhere a
// line for each log step, and at least one in 60 s:
//   step  1200/10000 12.0% | loss 6.8213 | lr 9.6e-05 | gnorm 1.92 |
//   31.2k tok/s | mem 3.1 GiB | ETA 1h12m
// (on one line). Each write is one whole line, without colors. Not thread-safe.
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress(); // finish()
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // After each step; `log` is true for steps that are logged.
  void step(const StepStatus& status, bool log);
  // A line of text of its own; use this while a run is on, not log_info.
  void message(std::string_view text);
  // Leaves the last status line on the screen. Called twice, it does nothing.
  void finish();

 private:
  void draw();

  ProgressOptions options_;
  double start_ = 0;
  double last_output_ = 0;
  StepStatus last_;
  bool drawn_ = false; // a status line is on the terminal
  bool pending_ = false; // the last status was not shown
};

// The line above. `seconds_left` < 0: not known yet. With `columns` > 0 the
// less important parts are left out until it fits.
std::string status_line(
    const StepStatus& status,
    int64_t total_steps,
    double seconds_left,
    int columns = 0);

} // namespace deepspeed::report
