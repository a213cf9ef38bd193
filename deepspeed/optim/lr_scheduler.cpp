// DeepSpeed's learning-rate schedulers.
#include "deepspeed/optim/lr_scheduler.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "deepspeed/base/error.h"

namespace deepspeed::optim {
namespace {

using config::SchedulerType;

// One value for each of `groups` param groups.
void spread(const char* name, size_t groups, std::vector<double>& values) {
  if (values.size() == 1) {
    values.assign(groups, values[0]);
  }
  if (values.size() != groups) {
    throw base::Error(
        base::ExitCode::config,
        std::string(name) + " has " + std::to_string(values.size()) +
            " values for " + std::to_string(groups) + " param groups",
        std::string("scheduler.params.") + name,
        "write one number for all groups, or one for each");
  }
}

} // namespace

LrScheduler::LrScheduler(
    const config::Scheduler& scheduler,
    std::vector<double> group_lrs)
    : type_(scheduler.type),
      params_(scheduler.params),
      group_lrs_(std::move(group_lrs)) {
  const size_t groups = group_lrs_.size();
  switch (type_) {
    case SchedulerType::none:
    case SchedulerType::WarmupCosineLR:
      break;
    case SchedulerType::WarmupLR:
    case SchedulerType::WarmupDecayLR:
      if (params_.warmup_max_lr.empty()) {
        params_.warmup_max_lr = group_lrs_;
      }
      spread("warmup_min_lr", groups, params_.warmup_min_lr);
      spread("warmup_max_lr", groups, params_.warmup_max_lr);
      break;
    case SchedulerType::OneCycle:
      spread("cycle_min_lr", groups, params_.cycle_min_lr);
      spread("cycle_max_lr", groups, params_.cycle_max_lr);
      spread("cycle_min_mom", groups, params_.cycle_min_mom);
      spread("cycle_max_mom", groups, params_.cycle_max_mom);
      break;
    case SchedulerType::LRRangeTest:
      spread("lr_range_test_min_lr", groups, params_.lr_range_test_min_lr);
      break;
  }
  // The logarithm of 1 would divide by zero.
  params_.warmup_num_steps = std::max<int64_t>(2, params_.warmup_num_steps);
}

void LrScheduler::set_last_batch_iteration(int64_t iteration) {
  if (iteration < -1) {
    throw base::Error(
        base::ExitCode::data,
        "last_batch_iteration is " + std::to_string(iteration),
        "lr_scheduler",
        "the checkpoint is damaged");
  }
  last_batch_iteration_ = iteration;
}

double LrScheduler::warmup_gamma() const {
  const double i = static_cast<double>(last_batch_iteration_);
  const double steps = static_cast<double>(params_.warmup_num_steps);
  if (i < 0) {
    return 0.0;
  }
  if (i >= steps) {
    return 1.0;
  }
  return params_.warmup_type == config::WarmupType::log
      ? 1.0 / std::log(steps) * std::log(i + 1)
      : i / steps;
}

double LrScheduler::decay_gamma() const {
  if (last_batch_iteration_ < params_.warmup_num_steps) {
    return warmup_gamma();
  }
  const double total = static_cast<double>(params_.total_num_steps);
  const double i = static_cast<double>(last_batch_iteration_);
  const double steps = static_cast<double>(params_.warmup_num_steps);
  return std::max(0.0, (total - i) / std::max(1.0, total - steps));
}

double LrScheduler::cosine_ratio() const {
  const double i = static_cast<double>(last_batch_iteration_);
  const double steps = static_cast<double>(params_.warmup_num_steps);
  if (i < 0) {
    return 0.0;
  }
  if (i < steps) {
    const double lowest = params_.warmup_min_ratio;
    return lowest + warmup_gamma() * (1.0 - lowest);
  }
  const double total = static_cast<double>(params_.total_num_steps);
  const double progress =
      std::min(1.0, (i - steps + 1) / std::max(1.0, total - steps));
  const double lowest = params_.cos_min_ratio;
  const double cosine = (1 + std::cos(std::numbers::pi * progress)) / 2;
  return std::max(0.0, lowest + (1.0 - lowest) * cosine);
}

double LrScheduler::cycle_size() const {
  return static_cast<double>(params_.cycle_first_step_size) +
      static_cast<double>(params_.cycle_second_step_size);
}

bool LrScheduler::in_cycle() const {
  return static_cast<double>(last_batch_iteration_) < cycle_size();
}

double LrScheduler::cycle_position() const {
  const double first = static_cast<double>(params_.cycle_first_step_size);
  const double second = static_cast<double>(params_.cycle_second_step_size);
  const double size = cycle_size();
  const double batch = static_cast<double>(last_batch_iteration_) + 1;
  const double x = 1.0 + batch / size - std::floor(1 + batch / size);
  const double ratio = first / size;
  const bool rising = x <= ratio;
  const auto stairs = static_cast<double>(
      rising ? params_.cycle_first_stair_count
             : params_.cycle_second_stair_count);
  if (stairs == 0) {
    return rising ? x / ratio : (x - 1) / (ratio - 1);
  }
  // Stairs are counted from the batch: at the peak x may round to just below.
  const double inside = std::fmod(batch, size);
  const double stair = inside <= first ? inside * stairs / first
                                       : (size - inside) * stairs / second;
  return std::floor(stair) / stairs;
}

double LrScheduler::one_cycle_lr(size_t group) const {
  const double lowest = params_.cycle_min_lr[group];
  if (in_cycle()) {
    const double height = params_.cycle_max_lr[group] - lowest;
    return lowest + height * cycle_position();
  }
  if (params_.decay_step_size == 0) {
    return lowest;
  }
  const double i = static_cast<double>(last_batch_iteration_);
  const double interval =
      (i - cycle_size() + 1) / static_cast<double>(params_.decay_step_size);
  return lowest / (1 + params_.decay_lr_rate * interval);
}

double LrScheduler::lr(size_t group) const {
  switch (type_) {
    case SchedulerType::none:
      break;
    case SchedulerType::WarmupLR:
    case SchedulerType::WarmupDecayLR: {
      const double lowest = params_.warmup_min_lr.at(group);
      const double gamma =
          type_ == SchedulerType::WarmupLR ? warmup_gamma() : decay_gamma();
      return lowest + (params_.warmup_max_lr.at(group) - lowest) * gamma;
    }
    case SchedulerType::WarmupCosineLR:
      return group_lrs_.at(group) * cosine_ratio();
    case SchedulerType::OneCycle:
      return one_cycle_lr(group);
    case SchedulerType::LRRangeTest: {
      const double steps = (static_cast<double>(last_batch_iteration_) + 1) /
          static_cast<double>(params_.lr_range_test_step_size);
      const double interval =
          params_.lr_range_test_staircase ? std::floor(steps) : steps;
      return params_.lr_range_test_min_lr.at(group) *
          (1 + params_.lr_range_test_step_rate * interval);
    }
  }
  return group_lrs_.at(group);
}

std::optional<std::array<double, 2>> LrScheduler::betas(size_t group) const {
  constexpr double kBeta2 = 0.99; // DeepSpeed forces it
  if (type_ != SchedulerType::OneCycle || !params_.cycle_momentum) {
    return std::nullopt;
  }
  const double lowest = params_.cycle_min_mom.at(group);
  const double highest = params_.cycle_max_mom.at(group);
  if (last_batch_iteration_ < 0) {
    return {{lowest, kBeta2}}; // not the highest, unlike at i = 0
  }
  if (in_cycle()) {
    return {{highest - (highest - lowest) * cycle_position(), kBeta2}};
  }
  if (params_.decay_step_size == 0) {
    return {{highest, kBeta2}};
  }
  const double i = static_cast<double>(last_batch_iteration_);
  const double interval =
      (i - cycle_size() + 1) / static_cast<double>(params_.decay_step_size);
  return {{highest * (1 + params_.decay_mom_rate * interval), kBeta2}};
}

} // namespace deepspeed::optim
