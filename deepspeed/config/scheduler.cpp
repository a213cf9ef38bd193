// The block "scheduler".
#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

void read_warmup(
    Section& params,
    const Context& context,
    SchedulerParams& result) {
  params.read(
      "warmup_num_steps",
      result.warmup_num_steps,
      kNotNegative, // below 2 it is 2, as in DeepSpeed
      Auto<int64_t>{context.warmup_steps, "--warmup_steps"});
  params.read(
      "warmup_type",
      result.warmup_type,
      {{"log", WarmupType::log}, {"linear", WarmupType::linear}});
}

// "auto" as transformers resolves it: from 0 to the lr of the optimizer.
void read_warmup_lr(
    Section& params,
    const Optimizer& optimizer,
    SchedulerParams& result) {
  const Auto<std::vector<double>> lowest{std::vector<double>{0.0}, ""};
  if (!params.read_auto("warmup_min_lr", result.warmup_min_lr, lowest)) {
    params.read("warmup_min_lr", result.warmup_min_lr, kNotNegative);
  }
  const Auto<std::vector<double>> peak{
      std::vector<double>{optimizer.params.lr}, ""};
  if (!params.read_auto("warmup_max_lr", result.warmup_max_lr, peak)) {
    params.read("warmup_max_lr", result.warmup_max_lr, kNotNegative);
  }
}

void read_total(
    Section& params,
    const Context& context,
    SchedulerParams& result) {
  if (!params.has("total_num_steps")) {
    params.fail(
        "total_num_steps",
        "the scheduler needs total_num_steps",
        "write the number of optimizer steps of the whole run");
  }
  params.read(
      "total_num_steps",
      result.total_num_steps,
      kCount,
      Auto<int64_t>{context.total_steps, "--num_iterations"});
  if (result.total_num_steps < result.warmup_num_steps) {
    params.fail(
        "total_num_steps",
        "total_num_steps " + std::to_string(result.total_num_steps) +
            " is less than warmup_num_steps " +
            std::to_string(result.warmup_num_steps),
        "set a smaller \"warmup_num_steps\" (default 1000)");
  }
}

void read_cycle_lr(Section& params, SchedulerParams& result) {
  for (const char* key : {"cycle_min_lr", "cycle_max_lr"}) {
    if (!params.has(key)) {
      params.fail(
          key, std::string("OneCycle needs ") + key, "write a learning rate");
    }
  }
  params.read("cycle_min_lr", result.cycle_min_lr, kNotNegative);
  params.read("cycle_max_lr", result.cycle_max_lr, kNotNegative);
  params.read("decay_lr_rate", result.decay_lr_rate, kNotNegative);
}

void read_one_cycle(
    Section& params,
    const Optimizer& optimizer,
    SchedulerParams& result) {
  read_cycle_lr(params, result);
  params.read("cycle_first_step_size", result.cycle_first_step_size, kCount);
  result.cycle_second_step_size = result.cycle_first_step_size;
  params.read(
      "cycle_second_step_size", result.cycle_second_step_size, kNotNegative);
  params.read(
      "cycle_first_stair_count", result.cycle_first_stair_count, kNotNegative);
  result.cycle_second_stair_count = result.cycle_first_stair_count;
  params.read(
      "cycle_second_stair_count",
      result.cycle_second_stair_count,
      kNotNegative);
  params.read("decay_step_size", result.decay_step_size, kNotNegative);
  params.read("cycle_momentum", result.cycle_momentum);
  params.read("cycle_min_mom", result.cycle_min_mom, kFraction);
  params.read("cycle_max_mom", result.cycle_max_mom, kFraction);
  params.read("decay_mom_rate", result.decay_mom_rate, kNotNegative);
  if (result.cycle_momentum && optimizer.type == OptimizerType::sgd) {
    params.warn(
        "cycle_momentum", "has no effect: only Adam and Lamb have betas");
    result.cycle_momentum = false;
  }
}

void read_range_test(Section& params, SchedulerParams& result) {
  params.read("lr_range_test_min_lr", result.lr_range_test_min_lr, kPositive);
  params.read(
      "lr_range_test_step_size", result.lr_range_test_step_size, kCount);
  params.read(
      "lr_range_test_step_rate", result.lr_range_test_step_rate, kNotNegative);
  params.read("lr_range_test_staircase", result.lr_range_test_staircase);
}

void read_params(
    Section& params,
    const Context& context,
    const Optimizer& optimizer,
    Scheduler& result) {
  SchedulerParams& values = result.params;
  switch (result.type) {
    case SchedulerType::none:
      break;
    case SchedulerType::WarmupLR:
      read_warmup_lr(params, optimizer, values);
      read_warmup(params, context, values);
      break;
    case SchedulerType::WarmupDecayLR:
      values.warmup_max_lr = {0.001};
      read_warmup_lr(params, optimizer, values);
      read_warmup(params, context, values);
      read_total(params, context, values);
      break;
    case SchedulerType::WarmupCosineLR:
      params.read("warmup_min_ratio", values.warmup_min_ratio, kFraction);
      params.read("cos_min_ratio", values.cos_min_ratio, kFraction);
      read_warmup(params, context, values);
      read_total(params, context, values);
      break;
    case SchedulerType::OneCycle:
      read_one_cycle(params, optimizer, values);
      break;
    case SchedulerType::LRRangeTest:
      read_range_test(params, values);
      break;
  }
}

} // namespace

void read_scheduler(
    Section& root,
    const Context& context,
    const Optimizer& optimizer,
    Scheduler& result) {
  Section block = root.child("scheduler");
  if (!root.has("scheduler")) {
    return;
  }
  if (!block.has("type")) {
    block.fail("type", "scheduler has no type", "write \"type\": \"WarmupLR\"");
  }
  block.read(
      "type",
      result.type,
      {{"WarmupLR", SchedulerType::WarmupLR},
       {"WarmupDecayLR", SchedulerType::WarmupDecayLR},
       {"WarmupCosineLR", SchedulerType::WarmupCosineLR},
       {"OneCycle", SchedulerType::OneCycle},
       {"LRRangeTest", SchedulerType::LRRangeTest}});
  Section params = block.child("params");
  read_params(params, context, optimizer, result);
  params.finish();
  block.finish();
}

} // namespace deepspeed::config
