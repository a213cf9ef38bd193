// Keys of features that are not here, and keys that DeepSpeed has removed.
#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

// Removed by DeepSpeed 0.19 (DeepSpeed issue 8489). Before, some of them were
// read and ignored.
void refuse_removed(Section& root) {
  const std::pair<const char*, const char*> removed[] = {
      {"amp", "DeepSpeed removed Apex AMP; use \"bf16\" or \"fp16\""},
      {"compression_training", "DeepSpeed removed its compression library"},
      {"curriculum_learning", "DeepSpeed removed this form of it"},
      {"eigenvalue", "DeepSpeed removed mixture of quantization"},
      {"elasticity",
       "DeepSpeed removed it; checkpoints load into any number of ranks, so "
       "set the batch sizes directly"},
      {"graph_harvesting", "DeepSpeed removed it"},
      {"nebula", "DeepSpeed removed the Nebula service"},
      {"progressive_layer_drop", "DeepSpeed removed it"},
      {"quantize_training", "DeepSpeed removed mixture of quantization"},
      {"sparse_attention", "DeepSpeed removed it"},
      {"sparse_gradients", "DeepSpeed removed it; gradients are dense"},
  };
  for (const auto& [key, reason] : removed) {
    root.refuse_removed(key, reason);
  }
}

// Blocks with a switch: they may stay in a file, switched off.
void refuse_blocks(Section& root) {
  root.refuse_enabled(
      "torch_autocast",
      {"dtype", "lower_precision_safe_modules"},
      "use \"bf16\" or \"fp16\": parameters in that dtype, fp32 masters");
  root.refuse_enabled(
      "flops_profiler",
      {"recompute_fwd_factor",
       "profile_step",
       "module_depth",
       "top_modules",
       "detailed",
       "output_file"},
      "the modules of a program are not traced");
  root.refuse_enabled(
      "comms_logger",
      {"prof_all", "prof_ops", "verbose", "debug"},
      "\"wall_clock_breakdown\" shows the time of communication");
  root.refuse_enabled(
      "wandb",
      {"group", "team", "project"},
      "it is a Python service; use \"tensorboard\" or \"csv_monitor\"");
  root.refuse_enabled(
      "comet",
      {"samples_log_interval",
       "project",
       "workspace",
       "api_key",
       "experiment_name",
       "experiment_key",
       "online",
       "mode"},
      "it is a Python service; use \"tensorboard\" or \"csv_monitor\"");
  root.refuse_enabled(
      "data_efficiency",
      {"seed", "data_sampling", "data_routing"},
      "curriculum sampling and random layer drop are not here");
  root.refuse_enabled(
      "hybrid_engine",
      {"max_out_tokens",
       "inference_tp_size",
       "release_inference_cache",
       "pin_parameters",
       "tp_gather_partition_size",
       "enable_cuda_graph"},
      "generation while training is not here");
}

void refuse_parallelism(Section& root) {
  root.refuse("pipeline", "pipeline parallelism is not here");
  root.refuse("tensor_parallel", "tensor parallelism is not here");
  root.refuse("expert_parallel", "mixture of experts is not here");
  root.no_effect(
      "use_data_before_expert_parallelism",
      false,
      "it orders ranks for a mixture of experts, which is not here");
  root.refuse_unless(
      "sequence_parallel_size", 1, "sequence parallelism is not here");
  root.refuse(
      "seq_parallel_communication_data_type",
      "sequence parallelism is not here");
}

void refuse_rest(Section& root) {
  root.refuse_removed(
      "autotuning", "set \"train_micro_batch_size_per_gpu\" by hand");
  root.refuse("compile", "nothing is compiled at run time");
  root.refuse("datastates", "use \"checkpoint\"");
  root.refuse("weight_quantization", "this is for inference");
  root.refuse("log_level", "what a program prints does not depend on a level");
  root.refuse_unless(
      "disable_allgather", false, "parameters must be gathered to be right");
  root.no_effect("disable_python_gc", false, "there is no Python here");
  root.no_effect(
      "zero_allow_untested_optimizer",
      true,
      "each optimizer is tested with each stage");
  root.no_effect(
      "zero_force_ds_cpu_optimizer",
      true,
      "there is one optimizer of each type");
}

void read_aio(Section& root) {
  Section aio = root.child("aio");
  for (const char* key :
       {"block_size",
        "queue_depth",
        "thread_count",
        "intra_op_parallelism",
        "single_submit",
        "overlap_events",
        "use_gds"}) {
    aio.has(key);
  }
  aio.finish();
  if (root.has("aio")) {
    root.warn("aio", "has no effect: it belongs to offload to NVMe");
  }
}

void read_timers(Section& root) {
  Section timers = root.child("timers");
  Section throughput = timers.child("throughput");
  throughput.no_effect("enabled", true, "throughput is always measured");
  throughput.no_effect("synchronized", true, "throughput is always exact");
  throughput.finish();
  timers.finish();
}

// In DeepSpeed, too, the block changes nothing unless the model calls the
// checkpointing functions itself, and then the memory alone.
void read_activation_checkpointing(Section& root) {
  const char* reason = "activations are kept, not recomputed";
  Section block = root.child("activation_checkpointing");
  block.no_effect("number_checkpoints", nullptr, reason);
  for (const char* key :
       {"partition_activations",
        "contiguous_memory_optimization",
        "cpu_checkpointing",
        "synchronize_checkpoint_boundary",
        "profile"}) {
    block.no_effect(key, false, reason);
  }
  block.finish();
}

// All that DeepSpeed does with it: a hint on the speed of the head.
void read_vocabulary_size(Section& root) {
  int64_t size = 0;
  root.read("vocabulary_size", size, kCount);
  if (size % 8 != 0) {
    root.warn(
        "vocabulary_size",
        std::to_string(size) + " is no multiple of 8: slower on tensor cores");
  }
}

} // namespace

void refuse_features(Section& root) {
  refuse_removed(root);
  refuse_blocks(root);
  refuse_parallelism(root);
  refuse_rest(root);
  read_aio(root);
  read_timers(root);
  read_activation_checkpointing(root);
  read_vocabulary_size(root);
}

} // namespace deepspeed::config
