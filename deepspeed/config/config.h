// ds_config.json, read once into typed structs. Thread-safe; no torch.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/base/json.h"
#include "deepspeed/config/sections.h"

namespace deepspeed::config {

enum class AllreduceOp { mean, sum };

// Every value is resolved: no "auto", no default left to look up elsewhere.
struct Config {
  // train_batch_size ==
  //     train_micro_batch_size_per_gpu * gradient_accumulation_steps * ranks
  int64_t train_batch_size = 0;
  int64_t train_micro_batch_size_per_gpu = 0;
  int64_t gradient_accumulation_steps = 0;
  // false: every step() is the boundary, the caller counts micro batches.
  bool managed_gradient_accumulation = true;

  double gradient_clipping = 1.0; // global L2 norm; 0: off
  // The dtype in which gradients travel; absent: fp32 (DeepSpeed: the compute
  // dtype).
  std::optional<Dtype> communication_data_type;
  // Divide before the sum by gradient_predivide_factor and after it by the
  // rest, or all before it with prescale_gradients. sum: do not divide.
  bool prescale_gradients = false;
  double gradient_predivide_factor = 1.0;
  AllreduceOp gradient_allreduce_op = AllreduceOp::mean;

  int64_t steps_per_print = 0; // 0: never
  bool wall_clock_breakdown = false;
  bool memory_breakdown = false;
  bool dump_state = false; // print the configuration at the start

  Optimizer optimizer;
  Scheduler scheduler;
  Fp16 fp16;
  Bf16 bf16;
  DataTypes data_types;
  ZeroOptimization zero_optimization;
  Monitor tensorboard;
  Monitor csv_monitor;
  Checkpoint checkpoint;

  // What the user wrote (comments are gone): goes into checkpoint files.
  base::Json source;
  // Deprecated keys, and keys without effect here: one line each, for rank 0 to
  // print.
  std::vector<std::string> warnings;

  // The compute dtype.
  Dtype dtype() const;
  // Whether a rank keeps the gradients of all parameters for a whole step: not
  // in stage 2, where each is cut as soon as it is summed, unless more of it
  // may come.
  bool keeps_whole_gradients() const {
    return zero_optimization.stage < 2 || gradient_accumulation_steps > 1 ||
        !managed_gradient_accumulation;
  }
  bool dynamic_loss_scale() const {
    return fp16.enabled && fp16.loss_scale == 0.0;
  }
};

// What the configuration alone does not say: the ranks, and the values of the
// program that take the place of "auto". Absent = "auto" is an error there.
struct Context {
  int64_t world_size = 1;
  std::optional<Dtype> dtype;
  std::optional<int64_t> micro_batch_size;
  std::optional<int64_t> gradient_accumulation_steps;
  std::optional<double> gradient_clipping;
  std::optional<double> lr;
  std::optional<std::vector<double>> betas; // two values
  std::optional<double> eps;
  std::optional<double> weight_decay;
  std::optional<int64_t> warmup_steps;
  std::optional<int64_t> total_steps;
  std::optional<int64_t> hidden_size; // "auto" bucket sizes: hidden_size^2
  std::optional<int64_t> zero_stage;
  std::optional<OffloadDevice> offload_optimizer;
  // Taken where there is no block "optimizer", which is not an error then.
  std::optional<Optimizer> optimizer;
};

// Error(config) names the source, the line and the key (or the path of the key,
// if there is no text), the value, and what to write instead:
// - JSON: comments and trailing commas are allowed, duplicate keys are not;
// - unknown keys, with the nearest known one; keys that DeepSpeed 0.19 removed
//   and keys of features that are not here, with the reason;
// - values of a wrong type or out of range (5e8 is an integer, "5" is not);
// - fp16 and bf16 at once, batch sizes that do not multiply, "auto" without a
//   value in `context`.
// `source` is the name shown in messages, mostly a path.
Config parse_config(
    std::string_view text,
    const std::string& source,
    const Context& context);
Config parse_config_object(
    const base::Json& json,
    const std::string& source,
    const Context& context);
// A template, since a text would convert to a Json.
template <std::same_as<base::Json> J>
Config parse_config(
    const J& json,
    const std::string& source,
    const Context& context) {
  return parse_config_object(json, source, context);
}

// Reads a file of at most 256 KiB. Error(no_input) if it cannot be read.
Config read_config(const std::string& path, const Context& context);

// JSON with every resolved value, two spaces of indentation, newline at the
// end; parse_config() of it gives the same Config, and Python DeepSpeed reads
// it, too. `source` and `warnings` are left out.
std::string print_config(const Config& config);

// set_train_batch_size(): keeps the micro batch and changes the accumulation.
// Error(config) if `train_batch_size` is no multiple of micro batch x ranks.
void set_train_batch_size(
    Config& config,
    int64_t train_batch_size,
    int64_t world_size);

// set_train_micro_batch_size(): keeps the accumulation, changes the batch.
void set_train_micro_batch_size(
    Config& config,
    int64_t micro_batch_size,
    int64_t world_size);

} // namespace deepspeed::config
