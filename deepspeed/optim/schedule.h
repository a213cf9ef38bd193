// Learning-rate schedules, pure functions of the step.
#pragma once

#include <cstdint>
#include <string>

namespace deepspeed::optim {

enum class ScheduleType { constant, constant_with_warmup, linear, cosine };

// "constant", "constant_with_warmup", "linear" or "cosine", the names that
// transformers gives its schedules; anything else is an Error(config).
ScheduleType parse_schedule_type(const std::string& name);

struct Schedule {
  ScheduleType type = ScheduleType::constant;
  double learning_rate = 1e-4; // the peak
  int64_t warmup_steps = 0; // linear from 0; not for `constant`
  int64_t total_steps = 0; // where linear and cosine reach 0

  // The learning rate of the update after `steps_done` updates (0 for the
  // first). As transformers/optimization.py defines them.
  double at(int64_t steps_done) const;
};

} // namespace deepspeed::optim
