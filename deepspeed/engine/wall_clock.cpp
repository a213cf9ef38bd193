// How long the parts of training take: wall_clock_breakdown.
#include "deepspeed/engine/wall_clock.h"

#include <algorithm>
#include <cstdio>

namespace deepspeed {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

} // namespace

void WallClock::add(const std::string& name, double seconds) {
  for (auto& [known, sum] : seconds_) {
    if (known == name) {
      sum += seconds;
      return;
    }
  }
  seconds_.emplace_back(name, seconds);
}

void WallClock::add_micro_step(const std::string& name, double seconds) {
  add(name + "_microstep", seconds);
  add(name, seconds);
}

void WallClock::begin_forward() {
  forward_ = std::chrono::steady_clock::now();
}

void WallClock::end_forward() {
  add_micro_step("fwd", seconds_since(forward_));
}

double WallClock::seconds(const std::string& name) const {
  for (const auto& [known, sum] : seconds_) {
    if (known == name) {
      return sum;
    }
  }
  return 0;
}

std::string WallClock::line(const std::vector<std::string>& names) {
  std::string text = "time (ms)";
  for (const std::string& name : names) {
    const auto found =
        std::find_if(seconds_.begin(), seconds_.end(), [&](const auto& item) {
          return item.first == name;
        });
    char value[32];
    std::snprintf(
        value,
        sizeof value,
        "%.2f",
        found == seconds_.end() ? 0.0 : found->second * 1000);
    text += " | " + name + ": " + value;
    if (found != seconds_.end()) {
      seconds_.erase(found);
    }
  }
  return text;
}

Timed::~Timed() {
  const double seconds = seconds_since(start_);
  if (of_ == Of::micro_step) {
    clock_.add_micro_step(name_, seconds);
  } else {
    clock_.add(name_, seconds);
  }
}

} // namespace deepspeed
