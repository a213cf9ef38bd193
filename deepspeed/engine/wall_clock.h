// How long the parts of training take: wall_clock_breakdown.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/base/trace.h"

namespace deepspeed {

// Seconds by name. The names are DeepSpeed's; a value with the suffix
// "_microstep" is of the last micro batch, one without is the sum of the step.
// Not thread-safe.
class WallClock {
 public:
  // Adds to a name.
  void add(const std::string& name, double seconds);
  // Adds to it and to that of the micro batch.
  void add_micro_step(const std::string& name, double seconds);
  // What follows a call of the engine until the next backward() is forward:
  // end_forward() adds it to "fwd".
  void begin_forward();
  void end_forward();
  // What was added so far; 0 for a name that is not known.
  double seconds(const std::string& name) const;
  // "time (ms) | fwd: 1.23 | bwd: 4.56" for these names; forgets them.
  std::string line(const std::vector<std::string>& names);

 private:
  std::vector<std::pair<std::string, double>> seconds_;
  std::chrono::steady_clock::time_point forward_;
};

// Adds the time of its life to a name.
class Timed {
 public:
  enum class Of { step, micro_step };

  Timed(WallClock& clock, const char* name, Of of = Of::micro_step)
      : clock_(clock),
        name_(name),
        of_(of),
        start_(std::chrono::steady_clock::now()) {}
  // A span of a profile, too.
  Timed(WallClock& clock, const char* name, base::SpanName span)
      : Timed(clock, name) {
    span_.emplace(span);
  }
  ~Timed();
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  WallClock& clock_;
  const char* name_;
  Of of_;
  std::chrono::steady_clock::time_point start_;
  std::optional<base::Span> span_;
};

} // namespace deepspeed
