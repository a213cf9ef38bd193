// How long the parts of training take: wall_clock_breakdown.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace deepspeed {

// Seconds by name. The names are DeepSpeed's; a value with the suffix
// "_microstep" is of the last micro batch, one without is the sum of the step.
// Not thread-safe.
class WallClock {
 public:
  // Adds to a name.
  void add(const std::string& name, double seconds);
  // What was added so far; 0 for a name that is not known.
  double seconds(const std::string& name) const;
  // "time (ms) | fwd: 1.23 | bwd: 4.56" for these names; forgets them.
  std::string line(const std::vector<std::string>& names);

 private:
  std::vector<std::pair<std::string, double>> seconds_;
};

// Adds the time of its life to a name.
class Timed {
 public:
  Timed(WallClock& clock, std::string name)
      : clock_(clock),
        name_(std::move(name)),
        start_(std::chrono::steady_clock::now()) {}
  ~Timed() {
    clock_.add(name_, seconds());
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

  double seconds() const {
    return std::chrono::duration<double>(
               std::chrono::steady_clock::now() - start_)
        .count();
  }

 private:
  WallClock& clock_;
  std::string name_;
  std::chrono::steady_clock::time_point start_;
};

} // namespace deepspeed
