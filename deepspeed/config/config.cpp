// ds_config.json, read once into typed structs.
#include "deepspeed/config/config.h"

#include <cmath>
#include <stdexcept>

#include "deepspeed/base/error.h"
#include "deepspeed/config/reader.h"
#include "deepspeed/file/atomic_file.h"

namespace deepspeed::config {
namespace {

using base::Json;

constexpr uint64_t kMaxBytes = 256 << 10;

const std::initializer_list<std::pair<const char*, Dtype>> kDtypes = {
    {"fp32", Dtype::fp32},
    {"fp16", Dtype::fp16},
    {"bf16", Dtype::bf16}};

void read_batch_keys(Section& root, const Context& context, Config& config) {
  // "auto" is the product, as if the key was not there.
  if (!root.is_word("train_batch_size", "auto")) {
    root.read("train_batch_size", config.train_batch_size, kCount);
  }
  root.read(
      "train_micro_batch_size_per_gpu",
      config.train_micro_batch_size_per_gpu,
      kCount,
      Auto<int64_t>{context.micro_batch_size, "--batch_size"});
  root.read(
      "gradient_accumulation_steps",
      config.gradient_accumulation_steps,
      kCount,
      Auto<int64_t>{
          context.gradient_accumulation_steps,
          "--gradient_accumulation_steps"});
  root.read(
      "managed_gradient_accumulation", config.managed_gradient_accumulation);
  root.no_effect(
      "dataloader_drop_last",
      false,
      "the engine loads no data, and train_bert_ds has full batches only");
}

void read_gradients(Section& root, const Context& context, Config& config) {
  root.read(
      "gradient_clipping",
      config.gradient_clipping,
      kNotNegative,
      Auto<double>{context.gradient_clipping, "--max_grad_norm"});
  if (root.has("communication_data_type")) {
    Dtype dtype = Dtype::fp32;
    root.read("communication_data_type", dtype, kDtypes, /*any_case=*/true);
    config.communication_data_type = dtype;
  }
  root.read("prescale_gradients", config.prescale_gradients);
  root.read(
      "gradient_predivide_factor", config.gradient_predivide_factor, kPositive);
  root.read(
      "gradient_allreduce_op",
      config.gradient_allreduce_op,
      {{"mean", AllreduceOp::mean}, {"sum", AllreduceOp::sum}},
      /*any_case=*/true);
}

void read_logging(Section& root, Config& config) {
  if (!root.is_word("steps_per_print", "auto")) { // never
    root.read("steps_per_print", config.steps_per_print, kNotNegative);
  }
  root.read("wall_clock_breakdown", config.wall_clock_breakdown);
  root.read("memory_breakdown", config.memory_breakdown);
  root.read("dump_state", config.dump_state);
  for (const auto& [key, monitor] :
       {std::pair{"tensorboard", &config.tensorboard},
        std::pair{"csv_monitor", &config.csv_monitor}}) {
    Section block = root.child(key);
    block.read("enabled", monitor->enabled);
    block.read("output_path", monitor->output_path);
    block.read("job_name", monitor->job_name);
    block.finish();
  }
}

// "enabled": "auto" is the program's --dtype.
void read_enabled(
    Section& block,
    const Context& context,
    Dtype dtype,
    bool& enabled) {
  Auto<bool> automatic{std::nullopt, "--dtype"};
  if (context.dtype) {
    automatic.value = *context.dtype == dtype;
  }
  if (!block.read_auto("enabled", enabled, automatic)) {
    block.read("enabled", enabled);
  }
}

void read_fp16(Section& root, const Context& context, Fp16& result) {
  Section block = root.child("fp16");
  read_enabled(block, context, Dtype::fp16, result.enabled);
  block.refuse_unless(
      "auto_cast",
      false,
      "the engine does not see the inputs of forward(); cast them there");
  if (block.is_word("loss_scale", "dynamic")) {
    block.fail(
        "loss_scale",
        "loss_scale must be a number, not \"dynamic\"",
        "write \"loss_scale\": 0, which is dynamic");
  }
  block.read("loss_scale", result.loss_scale, kNotNegative);
  block.read("initial_scale_power", result.initial_scale_power, {0.0, 64.0});
  block.read("loss_scale_window", result.loss_scale_window, kCount);
  block.read("hysteresis", result.hysteresis, kCount);
  block.read("consecutive_hysteresis", result.consecutive_hysteresis);
  block.read("min_loss_scale", result.min_loss_scale, kPositive);
  block.refuse_unless(
      "fp16_master_weights_and_grads", false, "master weights are fp32");
  const double initial = std::ldexp(1.0, int(result.initial_scale_power));
  if (initial < result.min_loss_scale) {
    block.fail(
        "min_loss_scale",
        "min_loss_scale is greater than the initial scale 2^" +
            std::to_string(result.initial_scale_power),
        "set a smaller \"min_loss_scale\" or a greater "
        "\"initial_scale_power\"");
  }
  block.finish();
}

void read_bf16(Section& root, const Context& context, Bf16& result) {
  const bool old_name = root.has("bfloat16");
  if (old_name && root.has("bf16")) {
    root.fail(
        "bfloat16", "bf16 and bfloat16 are the same block", "remove bfloat16");
  }
  Section block = root.child(old_name ? "bfloat16" : "bf16");
  if (old_name) {
    root.warn("bfloat16", "is deprecated: write \"bf16\"");
  }
  read_enabled(block, context, Dtype::bf16, result.enabled);
  block.read("check_grad_overflow", result.check_grad_overflow);
  // Many files have the keys of fp16 in both blocks.
  for (const char* key :
       {"loss_scale",
        "initial_scale_power",
        "loss_scale_window",
        "hysteresis",
        "consecutive_hysteresis",
        "min_loss_scale"}) {
    block.no_effect(key, nullptr, "the loss is scaled in fp16 alone");
  }
  block.refuse_unless(
      "immediate_grad_update", false, "gradients accumulate in fp32");
  block.refuse_unless(
      "bf16_master_weights_and_grads", false, "master weights are fp32");
  block.refuse_unless("bf16_optimizer_states", false, "the moments are fp32");
  block.finish();
}

void read_data_types(Section& root, const Config& config) {
  Section block = root.child("data_types");
  block.refuse_unless(
      "grad_accum_dtype", "fp32", "gradients always accumulate in fp32");
  block.refuse_unless(
      "param_dtype",
      dtype_name(config.dtype()),
      "\"fp16\" and \"bf16\" choose the dtype of the parameters");
  block.refuse("buffer_dtype", "buffers keep their dtype");
  if (!block.is_word("keep_in_fp32_modules", "auto")) {
    block.refuse_unless(
        "keep_in_fp32_modules",
        Json::array(),
        "all parameters have the same dtype");
  }
  block.finish();
}

void read_checkpoint(Section& root, Checkpoint& result) {
  Section block = root.child("checkpoint");
  block.read(
      "tag_validation",
      result.tag_validation,
      {{"Ignore", TagValidation::ignore},
       {"Warn", TagValidation::warn},
       {"Fail", TagValidation::fail}},
      /*any_case=*/true);
  block.refuse_unless(
      "load_universal",
      false,
      "each checkpoint loads into any number of ranks without conversion");
  block.refuse_unless(
      "use_node_local_storage", false, "a checkpoint lies in one folder");
  block.refuse_unless(
      "checkpoint_serialization", true, "files are zip archives");
  block.refuse("writer", "there is one writer");
  Section parallel = block.child("parallel_write");
  parallel.no_effect(
      "pipeline_stage", false, "pipeline parallelism is not here");
  parallel.finish();
  block.finish();
}

} // namespace

const char* dtype_name(Dtype dtype) {
  return (kDtypes.begin() + static_cast<int>(dtype))->first;
}

Dtype Config::dtype() const {
  return fp16.enabled ? Dtype::fp16 : bf16.enabled ? Dtype::bf16 : Dtype::fp32;
}

Config read_document(
    const Json& json,
    Document& document,
    const Context& context) {
  if (context.world_size < 1) {
    throw std::invalid_argument("config: world_size is less than 1");
  }
  Config config;
  Section root(document, &json, "");
  refuse_features(root);
  read_batch_keys(root, context, config);
  read_gradients(root, context, config);
  read_logging(root, config);
  read_optimizer(root, context, config.optimizer);
  read_scheduler(root, context, config.optimizer, config.scheduler);
  read_fp16(root, context, config.fp16);
  read_bf16(root, context, config.bf16);
  if (config.fp16.enabled && config.bf16.enabled) {
    root.fail("fp16", "fp16 and bf16 are both enabled", "enable one of them");
  }
  read_data_types(root, config);
  read_zero(root, context, config.zero_optimization);
  read_checkpoint(root, config.checkpoint);
  root.finish();
  // Last: a misspelt batch key is better named as such.
  resolve_batch(root, context, config);
  config.source = json;
  config.warnings = document.warnings;
  return config;
}

Config parse_config(
    std::string_view text,
    const std::string& source,
    const Context& context) {
  base::JsonOptions options;
  options.trailing_commas = true;
  Json json;
  try {
    json = base::parse_json(text, source, options);
  } catch (const base::Error& error) {
    throw base::Error(
        base::ExitCode::config, error.what(), error.where(), error.hint());
  }
  Document document(source, KeyLines(text));
  return read_document(json, document, context);
}

Config parse_config_object(
    const Json& json,
    const std::string& source,
    const Context& context) {
  Document document(source, KeyLines());
  return read_document(json, document, context);
}

Config read_config(const std::string& path, const Context& context) {
  return parse_config(file::read_file(path, kMaxBytes), path, context);
}

} // namespace deepspeed::config
