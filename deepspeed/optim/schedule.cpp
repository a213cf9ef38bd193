// Learning-rate schedules, pure functions of the step.
#include "deepspeed/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "deepspeed/base/error.h"

namespace deepspeed::optim {

ScheduleType parse_schedule_type(const std::string& name) {
  if (name == "constant") {
    return ScheduleType::constant;
  }
  if (name == "constant_with_warmup") {
    return ScheduleType::constant_with_warmup;
  }
  if (name == "linear") {
    return ScheduleType::linear;
  }
  if (name == "cosine") {
    return ScheduleType::cosine;
  }
  throw base::Error(
      base::ExitCode::config,
      "unknown learning-rate schedule '" + name + "'",
      "--lr_scheduler_type",
      "use constant, constant_with_warmup, linear or cosine");
}

double Schedule::at(int64_t steps_done) const {
  if (type == ScheduleType::constant) {
    return learning_rate;
  }
  if (steps_done < warmup_steps) {
    return learning_rate * static_cast<double>(steps_done) /
        static_cast<double>(std::max<int64_t>(1, warmup_steps));
  }
  if (type == ScheduleType::constant_with_warmup) {
    return learning_rate;
  }
  const double span =
      static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  if (type == ScheduleType::linear) {
    return learning_rate *
        std::max(0.0, static_cast<double>(total_steps - steps_done) / span);
  }
  const double progress = static_cast<double>(steps_done - warmup_steps) / span;
  return learning_rate *
      std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

} // namespace deepspeed::optim
