// The block "zero_optimization".
#include <cmath>

#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

void refuse_removed(Section& zero) {
  for (const char* key :
       {"mics_shard_size", "mics_hierarchical_params_gather"}) {
    zero.refuse(key, "DeepSpeed removed MiCS sharding");
  }
  zero.refuse("zeropp_loco_param", "DeepSpeed removed LoCo-ZeRO++");
}

void read_stage(
    Section& zero,
    const Context& context,
    ZeroOptimization& result) {
  int64_t stage = 0;
  zero.read(
      "stage",
      stage,
      {0.0, 3.0},
      Auto<int64_t>{context.zero_stage, "--zero_stage"});
  if (stage == 3) {
    zero.fail(
        "stage",
        "stage 3 (sharded parameters) is not implemented yet",
        "use stage 2: gradients and optimizer states are sharded");
  }
  result.stage = static_cast<int>(stage);
}

// "auto" is the square of the model's width, as transformers has it.
void read_buckets(
    Section& zero,
    const Context& context,
    ZeroOptimization& result) {
  Auto<int64_t> square{std::nullopt, "--h_dim"};
  if (context.hidden_size) {
    square.value = *context.hidden_size * *context.hidden_size;
  }
  zero.read("reduce_bucket_size", result.reduce_bucket_size, kCount, square);
  zero.read(
      "allgather_bucket_size", result.allgather_bucket_size, kCount, square);
}

void read_communication(Section& zero, ZeroOptimization& result) {
  if (zero.has("overlap_comm")) {
    bool overlap = true;
    zero.read("overlap_comm", overlap);
    result.overlap_comm = overlap;
  }
  zero.read("reduce_scatter", result.reduce_scatter);
  zero.read("ignore_unused_parameters", result.ignore_unused_parameters);
  zero.no_effect(
      "contiguous_gradients", true, "gradients always lie in one flat buffer");
  zero.no_effect(
      "allgather_partitions", true, "parameters always travel by all-gather");
  zero.no_effect(
      "use_multi_rank_bucket_allreduce",
      true,
      "a bucket is always reduced for all ranks at once");
  zero.no_effect(
      "elastic_checkpoint",
      false,
      "a checkpoint always loads into any number of ranks");
  zero.no_effect(
      "round_robin_gradients",
      false,
      "shards are contiguous, in the order of the parameters, and all ranks "
      "send at once");
  zero.no_effect("parameter_alignment", false, "parameters lie side by side");
  zero.no_effect("compute_grad_norm", true, "the norm is always known");
  zero.refuse_unless(
      "load_from_fp32_weights",
      true,
      "master weights always come from the fp32 copies of a checkpoint");
  zero.no_effect(
      "legacy_stage1", false, "there is one implementation of stage 1");
}

void refuse_extensions(Section& zero) {
  const char* zeropp = "quantized communication (ZeRO++) is not here";
  zero.refuse_unless("zero_hpz_partition_size", 1, zeropp);
  zero.refuse_unless("zero_quantized_weights", false, zeropp);
  zero.refuse_unless("zero_quantized_nontrainable_weights", false, zeropp);
  zero.refuse_unless("zero_quantized_gradients", false, zeropp);
  zero.refuse("zenflow", "ZenFlow is not here");
  zero.refuse_unless(
      "save_muon_momentum_buffer_in_memory", false, "Muon is not here");
}

// Keys that DeepSpeed reads for stage 3 alone: one warning for all.
void read_stage3_keys(Section& zero, int stage) {
  std::string given;
  for (const std::string name :
       {"prefetch_bucket_size",
        "param_persistence_threshold",
        "model_persistence_threshold",
        "max_live_parameters",
        "max_reuse_distance",
        "gather_16bit_weights_on_model_save",
        "gather_fp16_weights_on_model_save",
        "module_granularity_threshold",
        "use_all_reduce_for_fetch_params",
        "allgather_sequential"}) {
    for (const std::string& key : {"stage3_" + name, name}) {
      given += zero.has(key) ? (given.empty() ? "" : ", ") + key : "";
    }
  }
  for (const std::string key :
       {"sub_group_size",
        "memory_efficient_linear",
        "pipeline_loading_checkpoint",
        "override_module_apply",
        "log_trace_cache_warnings",
        "enable_sanity_checks",
        "leaf_module"}) {
    given += zero.has(key) ? (given.empty() ? "" : ", ") + key : "";
  }
  if (!given.empty()) {
    zero.warn_block(
        "no effect in stage " + std::to_string(stage) + ": " + given);
  }
}

OffloadDevice read_device(Section& block, const Context& context) {
  if (block.is_word("device", "nvme")) {
    block.fail(
        "device",
        "offload to NVMe is not implemented yet",
        "use \"device\": \"cpu\"");
  }
  OffloadDevice device = OffloadDevice::none;
  const Auto<OffloadDevice> automatic{
      context.offload_optimizer, "--offload_optimizer"};
  if (!block.read_auto("device", device, automatic)) {
    block.read(
        "device",
        device,
        {{"none", OffloadDevice::none}, {"cpu", OffloadDevice::cpu}});
  }
  return device;
}

void read_nvme_keys(Section& block) {
  const char* reason = "it belongs to offload to NVMe";
  block.no_effect("nvme_path", nullptr, reason);
  for (const auto& [key, standard] :
       {std::pair<const char*, base::Json>{"buffer_count", 4},
        {"pipeline_read", false},
        {"pipeline_write", false},
        {"fast_init", false}}) {
    block.no_effect(key, standard, reason);
  }
}

void read_offload_optimizer(
    Section& zero,
    const Context& context,
    ZeroOptimization& result) {
  Section block = zero.child("offload_optimizer");
  result.offload_optimizer.device = read_device(block, context);
  if (result.stage == 0 && block.is_word("device", "auto")) {
    result.offload_optimizer.device = OffloadDevice::none;
  }
  block.read("pin_memory", result.offload_optimizer.pin_memory);
  read_nvme_keys(block);
  block.no_effect(
      "ratio", 1.0, "partial offload needs stage 3 in DeepSpeed, too");
  block.refuse_unless(
      "super_offload", false, "it needs stage 3 in DeepSpeed, too");
  block.no_effect("cpuadam_cores_perc", 0.8, "it belongs to super_offload");
  block.finish();
}

// Offload of parameters is part of stage 3.
void read_offload_param(Section& zero) {
  Section block = zero.child("offload_param");
  if (block.is_word("device", "cpu") || block.is_word("device", "nvme")) {
    block.warn("device", "has no effect: offload of parameters needs stage 3");
  } else if (
      block.has("device") && !block.is_word("device", "none") &&
      !block.is_word("device", "auto")) {
    block.fail(
        "device",
        "this is no device to offload to",
        "remove offload_param: it belongs to stage 3");
  }
  for (const char* key :
       {"nvme_path",
        "buffer_count",
        "buffer_size",
        "max_in_cpu",
        "pin_memory"}) {
    block.has(key); // mean nothing with device "none", in DeepSpeed, too
  }
  block.finish();
}

// cpu_offload and its kin: DeepSpeed 0.19.8 still maps them.
void read_deprecated(Section& zero, ZeroOptimization& result) {
  bool offload = false;
  zero.read("cpu_offload", offload);
  if (zero.has("cpu_offload")) {
    zero.warn(
        "cpu_offload",
        "is deprecated: write \"offload_optimizer\": {\"device\": \"cpu\"}");
    if (zero.has("offload_optimizer")) {
      zero.fail(
          "cpu_offload",
          "cpu_offload and offload_optimizer together",
          "remove cpu_offload");
    }
  }
  if (offload) {
    result.offload_optimizer.device = OffloadDevice::cpu;
  }
  zero.no_effect(
      "cpu_offload_param", false, "offload of parameters needs stage 3");
  bool pin = false;
  zero.read("cpu_offload_use_pin_memory", pin);
  if (zero.has("cpu_offload_use_pin_memory")) {
    zero.warn(
        "cpu_offload_use_pin_memory",
        "is deprecated: write \"pin_memory\" in \"offload_optimizer\"");
    result.offload_optimizer.pin_memory = pin;
  }
}

} // namespace

void read_zero(
    Section& root,
    const Context& context,
    ZeroOptimization& result) {
  const std::optional<bool> on = root.boolean("zero_optimization");
  if (on) {
    root.warn(
        "zero_optimization",
        "true or false is deprecated: write {\"stage\": 1} or {\"stage\": 0}");
    result.stage = *on ? 1 : 0;
    return;
  }
  Section zero = root.child("zero_optimization");
  refuse_removed(zero);
  read_stage(zero, context, result);
  read_buckets(zero, context, result);
  read_communication(zero, result);
  refuse_extensions(zero);
  read_stage3_keys(zero, result.stage);
  read_offload_optimizer(zero, context, result);
  read_offload_param(zero);
  read_deprecated(zero, result);
  if (result.stage == 0 &&
      result.offload_optimizer.device != OffloadDevice::none) {
    zero.fail(
        "offload_optimizer",
        "offload_optimizer without ZeRO",
        "set \"stage\" to 1 or 2, or \"device\" to \"none\"");
  }
  zero.finish();
}

} // namespace deepspeed::config
