// The blocks of ds_config.json as plain structs. Names are DeepSpeed's, and a
// default is DeepSpeed 0.19.8's unless its comment says otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace deepspeed::config {

enum class Dtype { fp32, fp16, bf16 };

// "fp32", "fp16" or "bf16".
const char* dtype_name(Dtype dtype);

// adam and adamw differ in nothing but adam_w_mode's freedom: "Adam" is AdamW
// unless adam_w_mode is false, "AdamW" always is (DeepSpeed's rule).
enum class OptimizerType { none, adam, adamw, sgd, lamb };

// A type takes only the members of its own line; another is an error.
struct OptimizerParams {
  // All types. weight_decay: 0.01 for AdamW with torch_adam, as torch has it.
  double lr = 1e-3;
  double weight_decay = 0.0;
  // adam, adamw, lamb
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  bool bias_correction = true;
  // adam, adamw. torch_adam chooses torch's default of weight_decay; arithmetic
  // and checkpoints are the same.
  bool adam_w_mode = true;
  bool torch_adam = false;
  // sgd
  double momentum = 0.0;
  double dampening = 0.0;
  bool nesterov = false;
  // lamb
  double max_coeff = 10.0;
  double min_coeff = 0.01;
};

struct Optimizer {
  OptimizerType type = OptimizerType::none;
  OptimizerParams params;
};

enum class SchedulerType {
  none,
  WarmupLR,
  WarmupDecayLR,
  WarmupCosineLR,
  OneCycle,
  LRRangeTest,
};

enum class WarmupType { log, linear };

// Where the type is std::vector: one value for all param groups, or one each.
struct SchedulerParams {
  // WarmupLR, WarmupDecayLR. warmup_max_lr empty: the lr of each param group
  // (WarmupLR's default; that of WarmupDecayLR is 0.001).
  std::vector<double> warmup_min_lr = {0.0};
  std::vector<double> warmup_max_lr;
  // WarmupLR, WarmupDecayLR, WarmupCosineLR
  int64_t warmup_num_steps = 1000;
  WarmupType warmup_type = WarmupType::log;
  // WarmupDecayLR, WarmupCosineLR
  int64_t total_num_steps = 0; // required
  // WarmupCosineLR
  double warmup_min_ratio = 0.0;
  double cos_min_ratio = 1e-4;
  // OneCycle
  std::vector<double> cycle_min_lr; // required
  std::vector<double> cycle_max_lr; // required
  double decay_lr_rate = 0.0;
  int64_t cycle_first_step_size = 2000;
  int64_t cycle_second_step_size = 2000; // default: the first
  int64_t cycle_first_stair_count = 0;
  int64_t cycle_second_stair_count = 0; // default: the first
  int64_t decay_step_size = 0;
  bool cycle_momentum = true;
  std::vector<double> cycle_min_mom = {0.8};
  std::vector<double> cycle_max_mom = {0.9};
  double decay_mom_rate = 0.0;
  // LRRangeTest
  std::vector<double> lr_range_test_min_lr = {1e-3};
  int64_t lr_range_test_step_size = 2000;
  double lr_range_test_step_rate = 1.0;
  bool lr_range_test_staircase = false;
};

struct Scheduler {
  SchedulerType type = SchedulerType::none;
  SchedulerParams params;
};

struct Fp16 {
  bool enabled = false;
  double loss_scale = 0.0; // 0: dynamic
  int64_t initial_scale_power = 16; // the dynamic scale starts at 2^this
  int64_t loss_scale_window = 1000;
  int64_t hysteresis = 2;
  bool consecutive_hysteresis = false;
  double min_loss_scale = 1.0;
};

struct Bf16 {
  bool enabled = false;
  bool check_grad_overflow = true; // skip a step with non-finite gradients
};

struct DataTypes {
  // Always fp32 (DeepSpeed: the compute dtype); others are refused.
  Dtype grad_accum_dtype = Dtype::fp32;
};

enum class OffloadDevice { none, cpu };

struct OffloadOptimizer {
  OffloadDevice device = OffloadDevice::none;
  bool pin_memory = true; // page-locked memory, where there is a GPU
};

struct ZeroOptimization {
  int stage = 0; // 0, 1 or 2
  int64_t reduce_bucket_size = 500'000'000; // elements
  int64_t allgather_bucket_size = 500'000'000; // elements
  // Reduce buckets while backward runs; absent: the engine chooses (DeepSpeed:
  // false below stage 3). The sums are the same bits either way.
  std::optional<bool> overlap_comm;
  bool reduce_scatter = true; // false: all-reduce, then keep the own part
  bool ignore_unused_parameters = true; // false: unused parameter = error
  OffloadOptimizer offload_optimizer;
};

struct Monitor {
  bool enabled = false;
  std::string output_path;
  std::string job_name = "DeepSpeedJobName";
};

enum class TagValidation { ignore, warn, fail };

struct Checkpoint {
  TagValidation tag_validation = TagValidation::warn; // ranks differ in the tag
};

} // namespace deepspeed::config
