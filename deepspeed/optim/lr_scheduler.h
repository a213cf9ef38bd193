// DeepSpeed's learning-rate schedulers. No torch.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "deepspeed/config/sections.h"

namespace deepspeed::optim {

// The learning rates are a pure function of last_batch_iteration, i: -1 at the
// start, one more for each applied step (a skipped one does not count). So
// optimizer step n (from 1) runs at i = n - 2, and the first two steps run at
// the lowest rate of a warm-up. As deepspeed/runtime/lr_schedules.py has it.
class LrScheduler {
 public:
  // group_lrs: the lr that each param group has without a scheduler; type none
  // keeps them. Error(config) if a list has another number of values.
  LrScheduler(
      const config::Scheduler& scheduler,
      std::vector<double> group_lrs);

  // After an applied optimizer step.
  void step() {
    ++last_batch_iteration_;
  }

  double lr(size_t group) const;
  // OneCycle with cycle_momentum: the betas of the group. Otherwise absent: the
  // group keeps its own.
  std::optional<std::array<double, 2>> betas(size_t group) const;

  // All the state there is, as in a checkpoint.
  int64_t last_batch_iteration() const {
    return last_batch_iteration_;
  }
  // Error(data) below -1.
  void set_last_batch_iteration(int64_t iteration);

 private:
  // In units of the group's base lr.
  double cosine_ratio() const;
  // 0 at the lowest lr of a warm-up, 1 at its end.
  double warmup_gamma() const;
  double decay_gamma() const;
  // 0 at cycle_min_lr, 1 at cycle_max_lr.
  double cycle_position() const;
  double one_cycle_lr(size_t group) const;
  bool in_cycle() const;
  double cycle_size() const;

  config::SchedulerType type_;
  config::SchedulerParams params_; // lists have one value for each group
  std::vector<double> group_lrs_;
  int64_t last_batch_iteration_ = -1;
};

} // namespace deepspeed::optim
