// Where the time of a run goes.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace deepspeed::report {

// Adds up the time spent in named phases. Not thread-safe.
class PhaseClock {
 public:
  // Ends the phase that is on and starts `name`.
  void enter(const std::string& name) {
    stop();
    for (auto& phase : phases_) {
      if (phase.first == name) {
        current_ = &phase - phases_.data();
        return;
      }
    }
    current_ = static_cast<std::ptrdiff_t>(phases_.size());
    phases_.emplace_back(name, 0.0);
  }

  // Ends the phase that is on.
  void stop() {
    const auto now = std::chrono::steady_clock::now();
    if (current_ >= 0) {
      phases_[current_].second +=
          std::chrono::duration<double>(now - since_).count();
    }
    current_ = -1;
    since_ = now;
  }

  // Name and seconds, in the order of the first entry; up to the last enter()
  // or stop().
  const std::vector<std::pair<std::string, double>>& phases() const {
    return phases_;
  }

 private:
  std::vector<std::pair<std::string, double>> phases_;
  std::ptrdiff_t current_ = -1;
  std::chrono::steady_clock::time_point since_;
};

} // namespace deepspeed::report
