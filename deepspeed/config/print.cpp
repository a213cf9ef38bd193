// The resolved configuration as JSON.
#include "deepspeed/config/config.h"

namespace deepspeed::config {
namespace {

using base::Json;

// One value stands for all param groups; none for the lr of each.
Json number_or_list(const std::vector<double>& values) {
  if (values.empty()) {
    return nullptr;
  }
  return values.size() == 1 ? Json(values[0]) : Json(values);
}

Json optimizer_json(const Optimizer& optimizer) {
  const OptimizerParams& params = optimizer.params;
  Json out = {{"lr", params.lr}, {"weight_decay", params.weight_decay}};
  const bool has_moments = optimizer.type != OptimizerType::sgd;
  if (has_moments) {
    out["betas"] = params.betas;
    out["eps"] = params.eps;
    if (!params.torch_adam) { // torch's Adam has no such parameter
      out["bias_correction"] = params.bias_correction;
    }
  }
  const char* name = "SGD";
  switch (optimizer.type) {
    case OptimizerType::none:
      return nullptr;
    case OptimizerType::adam:
    case OptimizerType::adamw:
      name = optimizer.type == OptimizerType::adam ? "Adam" : "AdamW";
      out["adam_w_mode"] = params.adam_w_mode;
      out["torch_adam"] = params.torch_adam;
      break;
    case OptimizerType::sgd:
      out["momentum"] = params.momentum;
      out["dampening"] = params.dampening;
      out["nesterov"] = params.nesterov;
      break;
    case OptimizerType::lamb:
      name = "Lamb";
      out["max_coeff"] = params.max_coeff;
      out["min_coeff"] = params.min_coeff;
      break;
  }
  return {{"type", name}, {"params", out}};
}

Json warmup_json(const SchedulerParams& params) {
  return {
      {"warmup_num_steps", params.warmup_num_steps},
      {"warmup_type",
       params.warmup_type == WarmupType::log ? "log" : "linear"}};
}

Json warmup_lr_json(const SchedulerParams& params) {
  Json out = {
      {"warmup_min_lr", number_or_list(params.warmup_min_lr)},
      {"warmup_max_lr", number_or_list(params.warmup_max_lr)}};
  out.update(warmup_json(params));
  return out;
}

Json one_cycle_json(const SchedulerParams& params) {
  return {
      {"cycle_min_lr", number_or_list(params.cycle_min_lr)},
      {"cycle_max_lr", number_or_list(params.cycle_max_lr)},
      {"decay_lr_rate", params.decay_lr_rate},
      {"cycle_first_step_size", params.cycle_first_step_size},
      {"cycle_second_step_size", params.cycle_second_step_size},
      {"cycle_first_stair_count", params.cycle_first_stair_count},
      {"cycle_second_stair_count", params.cycle_second_stair_count},
      {"decay_step_size", params.decay_step_size},
      {"cycle_momentum", params.cycle_momentum},
      {"cycle_min_mom", number_or_list(params.cycle_min_mom)},
      {"cycle_max_mom", number_or_list(params.cycle_max_mom)},
      {"decay_mom_rate", params.decay_mom_rate}};
}

Json scheduler_json(const Scheduler& scheduler) {
  const SchedulerParams& params = scheduler.params;
  switch (scheduler.type) {
    case SchedulerType::none:
      break;
    case SchedulerType::WarmupLR:
      return {{"type", "WarmupLR"}, {"params", warmup_lr_json(params)}};
    case SchedulerType::WarmupDecayLR: {
      Json out = warmup_lr_json(params);
      out["total_num_steps"] = params.total_num_steps;
      return {{"type", "WarmupDecayLR"}, {"params", out}};
    }
    case SchedulerType::WarmupCosineLR: {
      Json out = warmup_json(params);
      out["total_num_steps"] = params.total_num_steps;
      out["warmup_min_ratio"] = params.warmup_min_ratio;
      out["cos_min_ratio"] = params.cos_min_ratio;
      return {{"type", "WarmupCosineLR"}, {"params", out}};
    }
    case SchedulerType::OneCycle:
      return {{"type", "OneCycle"}, {"params", one_cycle_json(params)}};
    case SchedulerType::LRRangeTest:
      return {
          {"type", "LRRangeTest"},
          {"params",
           {{"lr_range_test_min_lr",
             number_or_list(params.lr_range_test_min_lr)},
            {"lr_range_test_step_size", params.lr_range_test_step_size},
            {"lr_range_test_step_rate", params.lr_range_test_step_rate},
            {"lr_range_test_staircase", params.lr_range_test_staircase}}}};
  }
  return nullptr;
}

Json fp16_json(const Fp16& fp16) {
  return {
      {"enabled", fp16.enabled},
      {"loss_scale", fp16.loss_scale},
      {"initial_scale_power", fp16.initial_scale_power},
      {"loss_scale_window", fp16.loss_scale_window},
      {"hysteresis", fp16.hysteresis},
      {"consecutive_hysteresis", fp16.consecutive_hysteresis},
      {"min_loss_scale", fp16.min_loss_scale}};
}

Json zero_json(const ZeroOptimization& zero) {
  const OffloadOptimizer& offload = zero.offload_optimizer;
  const bool cpu = offload.device == OffloadDevice::cpu;
  return {
      {"stage", zero.stage},
      {"reduce_bucket_size", zero.reduce_bucket_size},
      {"allgather_bucket_size", zero.allgather_bucket_size},
      {"overlap_comm",
       zero.overlap_comm ? Json(*zero.overlap_comm) : Json(nullptr)},
      {"reduce_scatter", zero.reduce_scatter},
      {"ignore_unused_parameters", zero.ignore_unused_parameters},
      {"offload_optimizer",
       {{"device", cpu ? "cpu" : "none"}, {"pin_memory", offload.pin_memory}}}};
}

Json monitor_json(const Monitor& monitor) {
  return {
      {"enabled", monitor.enabled},
      {"output_path", monitor.output_path},
      {"job_name", monitor.job_name}};
}

const char* tag_validation_name(TagValidation mode) {
  switch (mode) {
    case TagValidation::ignore:
      return "Ignore";
    case TagValidation::warn:
      return "Warn";
    case TagValidation::fail:
      return "Fail";
  }
  return "";
}

} // namespace

std::string print_config(const Config& config) {
  const Dtype wire = config.communication_data_type.value_or(Dtype::fp32);
  const bool mean = config.gradient_allreduce_op == AllreduceOp::mean;
  Json out = {
      {"train_batch_size", config.train_batch_size},
      {"train_micro_batch_size_per_gpu", config.train_micro_batch_size_per_gpu},
      {"gradient_accumulation_steps", config.gradient_accumulation_steps},
      {"managed_gradient_accumulation", config.managed_gradient_accumulation},
      {"fp16", fp16_json(config.fp16)},
      {"bf16",
       {{"enabled", config.bf16.enabled},
        {"check_grad_overflow", config.bf16.check_grad_overflow}}},
      {"data_types",
       {{"grad_accum_dtype", dtype_name(config.data_types.grad_accum_dtype)}}},
      {"gradient_clipping", config.gradient_clipping},
      {"communication_data_type", dtype_name(wire)},
      {"prescale_gradients", config.prescale_gradients},
      {"gradient_predivide_factor", config.gradient_predivide_factor},
      {"gradient_allreduce_op", mean ? "mean" : "sum"},
      {"zero_optimization", zero_json(config.zero_optimization)},
      {"checkpoint",
       {{"tag_validation",
         tag_validation_name(config.checkpoint.tag_validation)}}},
      {"steps_per_print",
       config.steps_per_print > 0 ? Json(config.steps_per_print) : Json()},
      {"wall_clock_breakdown", config.wall_clock_breakdown},
      {"memory_breakdown", config.memory_breakdown},
      {"dump_state", config.dump_state},
      {"tensorboard", monitor_json(config.tensorboard)},
      {"csv_monitor", monitor_json(config.csv_monitor)}};
  if (config.optimizer.type != OptimizerType::none) {
    out["optimizer"] = optimizer_json(config.optimizer);
  }
  if (config.scheduler.type != SchedulerType::none) {
    out["scheduler"] = scheduler_json(config.scheduler);
  }
  // Text from the user may be anything that JSON took: it was valid UTF-8.
  return out.dump(2) + "\n";
}

} // namespace deepspeed::config
