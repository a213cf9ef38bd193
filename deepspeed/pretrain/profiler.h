// --profile N: a trace of N steps, and how far they are from what the machine
// can do.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/base/trace.h"
#include "deepspeed/comm/process_group.h"

namespace deepspeed::pretrain {

// What one rank has trained on since it started.
struct WorkDone {
  double tokens = 0;
  double flops = 0; // bert::training_flops()
};

struct ProfilerOptions {
  int64_t steps = 0; // to take; 0: none
  int64_t first_step = 0; // steps done before the run...
  int64_t last_step = 0; // ... and after it
  at::ScalarType dtype = at::kFloat; // of the model's products
  std::string path; // of the file; empty: only the table
};

// All ranks make the same calls; they meet in write(). Not thread-safe.
class Profiler {
 public:
  Profiler(const ProfilerOptions& options, comm::ProcessGroup& ranks);
  // Leaves no trace under way.
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // A step begins; `done` steps are done, and `work` so far. The first two
  // steps of a run are left out, as far as there are others: they set memory
  // and libraries up.
  void begin_step(int64_t done, const WorkDone& work);
  // It ends. Evaluations and checkpoints come after it.
  void end_step();

  // Whether the trace is under way...
  bool is_running() const {
    return running_;
  }
  // ... and all its steps are done.
  bool is_complete(int64_t done) const;
  // While it is under way, also with fewer steps than asked for: ends the
  // trace, measures what the machine's products reach (a third of a second),
  // and rank 0 writes the file and the table. A file that cannot be written
  // gives a warning.
  void write(int64_t done, const WorkDone& work);

  // Operations per second that products of all ranks together reach; 0 before
  // write().
  double peak() const {
    return peak_;
  }

 private:
  // Writes the file of all ranks; says where it is.
  std::string written(const std::vector<std::string>& events) const;

  ProfilerOptions options_;
  comm::ProcessGroup& ranks_;
  int64_t begin_; // steps done when it starts
  bool running_ = false;
  WorkDone before_; // at the start
  std::optional<base::Span> step_;
  double peak_ = 0;
};

// "43.1 % of the 198 GFLOP/s that matrix products reach here"
std::string utilization_text(double flops_per_second, double peak);

} // namespace deepspeed::pretrain
