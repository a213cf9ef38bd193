// --profile N: a trace of N steps, and how far they are from what the machine
// can do.
#include "deepspeed/pretrain/profiler.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/bert/flops.h"
#include "deepspeed/comm/gather.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/report/profile.h"

namespace deepspeed::pretrain {
namespace {

constexpr int64_t kWarmUpSteps = 2;

// The spans that may overlap: the reduction of gradients with backward.
constexpr const char* kReduction = "reduce";
constexpr const char* kBackward = "backward";

// The figures of a rank, or of all ranks together.
struct Sum {
  double started = 0; // the earliest, microseconds since 1970
  double tokens = 0;
  double flops = 0;
  double step_seconds = 0; // of the slowest
  double peak = 0;
  double lost = 0; // spans
};

Sum sum_over(comm::ProcessGroup& ranks, const Sum& own) {
  Sum sum{own.started};
  for (const Sum& rank : comm::gather(ranks, own)) {
    sum.started = std::min(sum.started, rank.started);
    sum.tokens += rank.tokens;
    sum.flops += rank.flops;
    sum.step_seconds = std::max(sum.step_seconds, rank.step_seconds);
    sum.peak += rank.peak;
    sum.lost += rank.lost;
  }
  return sum;
}

double lost_spans(const base::Trace& trace) {
  double lost = 0;
  for (const base::ThreadTrace& thread : trace.threads) {
    lost += static_cast<double>(thread.lost);
  }
  return lost;
}

std::string reduction_text(const base::Trace& trace, int64_t steps) {
  const double seconds = report::span_seconds(trace, kReduction);
  if (seconds == 0) {
    return "";
  }
  std::array<char, 128> text{};
  std::snprintf(
      text.data(),
      text.size(),
      "  reduction: %.2f ms a step, %.0f %% of it while backward ran\n",
      1e3 * seconds / static_cast<double>(steps),
      100 * report::span_seconds_inside(trace, kReduction, kBackward) /
          seconds);
  return text.data();
}

std::string heading(int64_t first, int64_t steps, const Sum& sum) {
  const auto count = static_cast<double>(steps);
  std::array<char, 160> text{};
  std::snprintf(
      text.data(),
      text.size(),
      "profile of %lld step%s from step %lld on: %.2f ms a step, %s tokens/s, ",
      static_cast<long long>(steps),
      steps == 1 ? "" : "s",
      static_cast<long long>(first),
      1e3 * sum.step_seconds / count,
      base::format_count(static_cast<int64_t>(sum.tokens / sum.step_seconds))
          .c_str());
  return text.data() +
      utilization_text(sum.flops / sum.step_seconds, sum.peak) + "\n";
}

} // namespace

std::string utilization_text(double flops_per_second, double peak) {
  std::array<char, 96> text{};
  std::snprintf(
      text.data(),
      text.size(),
      "%.1f %% of the %.0f GFLOP/s that matrix products reach here",
      100 * flops_per_second / peak,
      peak / 1e9);
  return text.data();
}

Profiler::Profiler(const ProfilerOptions& options, comm::ProcessGroup& ranks)
    : options_(options), ranks_(ranks) {
  const int64_t spare =
      options_.last_step - options_.first_step - options_.steps;
  begin_ = options_.first_step + std::clamp<int64_t>(spare, 0, kWarmUpSteps);
}

Profiler::~Profiler() {
  if (running_) {
    base::stop_trace();
  }
}

void Profiler::begin_step(int64_t done, const WorkDone& work) {
  if (options_.steps > 0 && done == begin_) {
    running_ = true;
    before_ = work;
    base::name_this_thread("main");
    base::start_trace();
  }
  if (running_) {
    step_.emplace(base::SpanName{"step", "", done + 1});
  }
}

void Profiler::end_step() {
  step_.reset();
}

bool Profiler::is_complete(int64_t done) const {
  return running_ && done == begin_ + options_.steps;
}

void Profiler::write(int64_t done, const WorkDone& work) {
  running_ = false;
  step_.reset();
  const base::Trace trace = base::stop_trace();
  const int64_t steps = done - begin_;
  ranks_.barrier(); // all ranks load the machine at once, as in training
  Sum own;
  own.started = static_cast<double>(trace.started);
  own.tokens = work.tokens - before_.tokens;
  own.flops = work.flops - before_.flops;
  own.step_seconds = report::span_seconds(trace, "step");
  own.peak = bert::measure_product_peak(options_.dtype);
  own.lost = lost_spans(trace);
  const Sum sum = sum_over(ranks_, own);
  peak_ = sum.peak;
  const std::vector<std::string> events =
      ranks_.all_gather_text(report::trace_events(
          trace, ranks_.rank(), static_cast<int64_t>(sum.started)));
  if (ranks_.rank() != 0 || steps == 0) {
    return;
  }
  std::string text =
      heading(begin_ + 1, steps, sum) +
      report::trace_table(
          trace, steps, own.step_seconds / static_cast<double>(steps)) +
      reduction_text(trace, steps);
  if (sum.lost > 0) {
    text += "  " + base::format_count(static_cast<int64_t>(sum.lost)) +
        " spans are missing: profile fewer steps\n";
  }
  text += written(events);
  base::write_line(text);
}

// A run does not end because a profile cannot be written.
std::string Profiler::written(const std::vector<std::string>& events) const {
  if (options_.path.empty()) {
    return "";
  }
  try {
    file::write_file_atomically(options_.path, report::trace_file(events));
  } catch (const base::Error& error) {
    base::log_warning("no profile was written\n" + error.report());
    return "";
  }
  return "  written: " + options_.path + " (for ui.perfetto.dev)\n";
}

} // namespace deepspeed::pretrain
