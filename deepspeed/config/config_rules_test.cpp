// The batch equation, "auto", deprecated and refused keys, and printing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "deepspeed/base/error.h"
#include "deepspeed/config/config.h"
#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

using base::Error;
using base::ExitCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Config parse(const std::string& text, const Context& context = {}) {
  return parse_config(text, "ds.json", context);
}

std::string with(const std::string& rest) {
  return "{\"train_micro_batch_size_per_gpu\": 2,\n" + rest + "}";
}

std::string refusal(const std::string& text, const Context& context = {}) {
  try {
    parse(text, context);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config) << error.report();
    return error.report();
  }
  ADD_FAILURE() << "accepted: " << text;
  return "";
}

Context ranks(int64_t world_size) {
  Context context;
  context.world_size = world_size;
  return context;
}

// Batch, micro batch, accumulation of a text with those that are not 0.
struct Batch {
  int64_t train, micro, accumulation;
};

std::string batch_text(Batch batch) {
  std::string text;
  auto add = [&](const char* key, int64_t value) {
    if (value != 0) {
      text += std::string(text.empty() ? "{\"" : ",\n\"") + key +
          "\": " + std::to_string(value);
    }
  };
  add("train_batch_size", batch.train);
  add("train_micro_batch_size_per_gpu", batch.micro);
  add("gradient_accumulation_steps", batch.accumulation);
  return text + "}";
}

TEST(Batch, DerivesWhatIsMissing) {
  struct Case {
    int64_t world;
    Batch given, expected;
  };
  const Case cases[] = {
      {2, {24, 4, 3}, {24, 4, 3}},
      {2, {24, 4, 0}, {24, 4, 3}},
      {2, {24, 0, 3}, {24, 4, 3}},
      {2, {0, 4, 3}, {24, 4, 3}},
      {2, {24, 0, 0}, {24, 12, 1}},
      {2, {0, 4, 0}, {8, 4, 1}},
      {1, {1, 0, 0}, {1, 1, 1}},
  };
  for (const Case& one : cases) {
    const Config config = parse(batch_text(one.given), ranks(one.world));
    EXPECT_EQ(config.train_batch_size, one.expected.train);
    EXPECT_EQ(config.train_micro_batch_size_per_gpu, one.expected.micro);
    EXPECT_EQ(config.gradient_accumulation_steps, one.expected.accumulation);
  }
}

TEST(Batch, ShowsTheEquationAndTwoFixes) {
  EXPECT_EQ(
      refusal(batch_text({24, 4, 2}), ranks(2)),
      "error: train_batch_size 24 is not train_micro_batch_size_per_gpu 4 x "
      "gradient_accumulation_steps 2 x 2 ranks = 16\n"
      "  ds.json:1 train_batch_size\n"
      "  hint: set \"train_batch_size\" to 16, or set "
      "\"gradient_accumulation_steps\" to 3\n");
  EXPECT_THAT(
      refusal(batch_text({20, 4, 2}), ranks(2)),
      HasSubstr("set \"train_micro_batch_size_per_gpu\" to 5"));
  EXPECT_THAT(
      refusal(batch_text({25, 4, 2}), ranks(2)),
      HasSubstr("set \"train_batch_size\" to 16, or to another multiple"));
  // Derived: 25 / 4 / 2 is 3 with a rest.
  EXPECT_THAT(
      refusal(batch_text({25, 4, 0}), ranks(2)),
      HasSubstr(
          "steps 3 x 2 ranks = 24\n  ds.json:1 train_batch_size\n  hint: set "
          "\"train_batch_size\" to 24, or change "
          "\"train_micro_batch_size_per_gpu\""));
  EXPECT_THAT(
      refusal(batch_text({25, 0, 4}), ranks(2)),
      HasSubstr("to 24, or change \"gradient_accumulation_steps\""));
  // More ranks than samples.
  EXPECT_THAT(
      refusal(batch_text({3, 0, 0}), ranks(4)),
      HasSubstr("\"train_batch_size\" to 4"));
}

TEST(Batch, NeedsAKey) {
  EXPECT_THAT(refusal("{}"), HasSubstr("neither train_batch_size nor"));
  EXPECT_THAT(
      refusal("{\"gradient_accumulation_steps\": 2}"),
      HasSubstr("neither train_batch_size nor"));
}

TEST(Batch, RefusesSizesThatOverflow) {
  EXPECT_THAT(
      refusal(batch_text({0, 1L << 40, 1L << 40})), HasSubstr("too large"));
  refusal(batch_text({7, 1L << 40, 1L << 40}));
}

TEST(Batch, CanBeChangedAtRunTime) {
  Config config = parse(batch_text({0, 4, 2}), ranks(2));
  set_train_batch_size(config, 32, 2);
  EXPECT_EQ(config.gradient_accumulation_steps, 4);
  EXPECT_THROW(set_train_batch_size(config, 33, 2), Error);
  EXPECT_THROW(set_train_batch_size(config, 0, 2), Error);
  EXPECT_EQ(config.train_batch_size, 32);
  set_train_micro_batch_size(config, 1, 2);
  EXPECT_EQ(config.train_batch_size, 8);
  EXPECT_THROW(set_train_micro_batch_size(config, 0, 2), Error);
}

const char* const kAuto = R"({
  "train_batch_size": "auto",
  "train_micro_batch_size_per_gpu": "auto",
  "gradient_accumulation_steps": "auto",
  "gradient_clipping": "auto",
  "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto",
      "eps": "auto", "weight_decay": "auto"}},
  "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": "auto",
      "warmup_max_lr": "auto", "warmup_num_steps": "auto",
      "total_num_steps": "auto"}},
  "fp16": {"enabled": "auto"},
  "bf16": {"enabled": "auto"},
  "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}
})";

Context full_context() {
  Context context = ranks(2);
  context.dtype = Dtype::bf16;
  context.micro_batch_size = 4;
  context.gradient_accumulation_steps = 3;
  context.gradient_clipping = 0.5;
  context.lr = 2e-4;
  context.betas = {{0.8, 0.95}};
  context.eps = 1e-6;
  context.weight_decay = 0.1;
  context.warmup_steps = 10;
  context.total_steps = 100;
  context.hidden_size = 256;
  return context;
}

TEST(Auto, TakesTheValuesOfTheProgram) {
  const Config config = parse(kAuto, full_context());
  EXPECT_EQ(config.train_batch_size, 24);
  EXPECT_EQ(config.gradient_clipping, 0.5);
  EXPECT_EQ(config.optimizer.params.lr, 2e-4);
  EXPECT_EQ(config.optimizer.params.betas[1], 0.95);
  EXPECT_EQ(config.optimizer.params.eps, 1e-6);
  EXPECT_EQ(config.optimizer.params.weight_decay, 0.1);
  EXPECT_THAT(config.scheduler.params.warmup_min_lr, ElementsAre(0.0));
  EXPECT_THAT(config.scheduler.params.warmup_max_lr, ElementsAre(2e-4));
  EXPECT_EQ(config.scheduler.params.warmup_num_steps, 10);
  EXPECT_EQ(config.scheduler.params.total_num_steps, 100);
  EXPECT_EQ(config.dtype(), Dtype::bf16);
  EXPECT_EQ(config.zero_optimization.reduce_bucket_size, 65536);
  EXPECT_EQ(config.source["gradient_clipping"], "auto"); // as it was written
}

TEST(Auto, WithoutAValueNamesTheFlag) {
  const std::pair<void (*)(Context&), const char*> cases[] = {
      {[](Context& c) { c.dtype.reset(); }, "--dtype"},
      {[](Context& c) { c.micro_batch_size.reset(); }, "--batch_size"},
      {[](Context& c) { c.gradient_accumulation_steps.reset(); },
       "--gradient_accumulation_steps"},
      {[](Context& c) { c.gradient_clipping.reset(); }, "--max_grad_norm"},
      {[](Context& c) { c.lr.reset(); }, "--learning_rate"},
      {[](Context& c) { c.betas.reset(); }, "--adam_beta1"},
      {[](Context& c) { c.eps.reset(); }, "--adam_epsilon"},
      {[](Context& c) { c.weight_decay.reset(); }, "--weight_decay"},
      {[](Context& c) { c.warmup_steps.reset(); }, "--warmup_steps"},
      {[](Context& c) { c.total_steps.reset(); }, "--num_iterations"},
      {[](Context& c) { c.hidden_size.reset(); }, "--h_dim"},
  };
  for (const auto& [remove, flag] : cases) {
    Context context = full_context();
    remove(context);
    const std::string report = refusal(kAuto, context);
    EXPECT_THAT(report, HasSubstr("is \"auto\", but")) << flag;
    EXPECT_THAT(report, HasSubstr(flag));
  }
  EXPECT_EQ(
      refusal(with("\"gradient_clipping\": \"auto\"")),
      "error: gradient_clipping is \"auto\", but the program gives no value "
      "for it\n  ds.json:2 gradient_clipping\n"
      "  hint: give the program --max_grad_norm, or write a value\n");
}

TEST(Auto, IsCheckedLikeAWrittenValue) {
  Context context = full_context();
  context.micro_batch_size = 0;
  EXPECT_THAT(
      refusal(kAuto, context),
      HasSubstr(
          "train_micro_batch_size_per_gpu is 0 (\"auto\": --batch_size)"));
}

TEST(Auto, NoWarmUpIsAWarmUp) { // transformers' default
  Context context = full_context();
  context.warmup_steps = 0;
  EXPECT_EQ(parse(kAuto, context).scheduler.params.warmup_num_steps, 0);
}

TEST(Auto, OfStageAndOffloadIsTheFlag) {
  const std::string text = with(R"("zero_optimization": {"stage": "auto",
      "offload_optimizer": {"device": "auto"}})");
  Context context = full_context();
  context.zero_stage = 2;
  context.offload_optimizer = OffloadDevice::cpu;
  const Config config = parse(text, context);
  EXPECT_EQ(config.zero_optimization.stage, 2);
  EXPECT_EQ(
      config.zero_optimization.offload_optimizer.device, OffloadDevice::cpu);
  context.zero_stage = 0; // nothing to offload
  EXPECT_EQ(
      parse(text, context).zero_optimization.offload_optimizer.device,
      OffloadDevice::none);
  EXPECT_THAT(refusal(text), HasSubstr("give the program --zero_stage"));
}

TEST(Auto, IsRefusedForOtherKeys) {
  EXPECT_THAT(
      refusal(with("\"zero_optimization\": {\"overlap_comm\": \"auto\"}")),
      HasSubstr("\"auto\" is not possible for this key"));
  EXPECT_THAT(
      refusal(with("\"dump_state\": \"auto\"")), HasSubstr("not possible"));
}

TEST(Zero, StageThreeAndItsOffloadAreRefusedByName) {
  EXPECT_THAT(
      refusal(with("\"zero_optimization\": {\"stage\": 3}")),
      HasSubstr("stage 3 (sharded parameters) is not implemented yet"));
  EXPECT_THAT(
      refusal(with(R"("zero_optimization": {"stage": 1,
          "offload_optimizer": {"device": "nvme", "nvme_path": "/x"}})")),
      HasSubstr("offload to NVMe is not implemented yet"));
  EXPECT_THAT(
      refusal(with(
          R"("zero_optimization": {"offload_optimizer": {"device": "cpu"}})")),
      HasSubstr("offload_optimizer without ZeRO"));
}

TEST(Zero, KeysWithoutEffectGiveAWarning) {
  const Config config = parse(with(R"("zero_optimization": {
      "stage": 2,
      "contiguous_gradients": false,
      "allgather_partitions": true,
      "stage3_max_live_parameters": 1e9,
      "sub_group_size": 1e9,
      "offload_param": {"device": "none", "pin_memory": true},
      "offload_optimizer": {"device": "cpu", "buffer_count": 4,
                            "fast_init": true}})"));
  EXPECT_THAT(
      config.warnings,
      ElementsAre(
          "ds.json:4 zero_optimization.contiguous_gradients: false has no "
          "effect: gradients always lie in one flat buffer",
          "ds.json:2 zero_optimization: no effect in stage 2: "
          "stage3_max_live_parameters, sub_group_size",
          "ds.json:10 zero_optimization.offload_optimizer.fast_init: true has "
          "no effect: it belongs to offload to NVMe"));
}

TEST(Zero, DeprecatedKeysAreMapped) {
  const Config config = parse(with(
      R"("zero_optimization": {"stage": 1, "cpu_offload": true,
      "cpu_offload_use_pin_memory": false}, "bfloat16": {"enabled": true})"));
  EXPECT_EQ(
      config.zero_optimization.offload_optimizer.device, OffloadDevice::cpu);
  EXPECT_FALSE(config.zero_optimization.offload_optimizer.pin_memory);
  EXPECT_EQ(config.dtype(), Dtype::bf16);
  EXPECT_EQ(config.warnings.size(), 3u);
  for (const std::string& warning : config.warnings) {
    EXPECT_THAT(warning, HasSubstr("is deprecated: write"));
  }
  const Config old_form = parse(with("\"zero_optimization\": true"));
  EXPECT_EQ(old_form.zero_optimization.stage, 1);
  EXPECT_EQ(old_form.warnings.size(), 1u);
  EXPECT_THAT(
      refusal(with(R"("zero_optimization": {"stage": 1, "cpu_offload": true,
          "offload_optimizer": {"device": "cpu"}})")),
      HasSubstr("cpu_offload and offload_optimizer together"));
  EXPECT_THAT(
      refusal(with(R"("bf16": {}, "bfloat16": {})")),
      HasSubstr("are the same block"));
}

// Keys of ds_config.json that are refused, with a value that DeepSpeed takes.
const char* const kRefused[] = {
    R"("amp": {"enabled": true})",
    R"("compression_training": {})",
    R"("curriculum_learning": {})",
    R"("eigenvalue": {})",
    R"("elasticity": {"enabled": true})",
    R"("graph_harvesting": true)",
    R"("nebula": {})",
    R"("progressive_layer_drop": {})",
    R"("quantize_training": {})",
    R"("sparse_attention": {})",
    R"("sparse_gradients": true)",
    R"("torch_autocast": {"enabled": true, "dtype": "bfloat16"})",
    R"("flops_profiler": {"enabled": true})",
    R"("comms_logger": {"enabled": true})",
    R"("wandb": {"enabled": true})",
    R"("comet": {"enabled": true})",
    R"("data_efficiency": {"enabled": true})",
    R"("hybrid_engine": {"enabled": true})",
    R"("pipeline": {})",
    R"("tensor_parallel": {"autotp_size": 2})",
    R"("expert_parallel": {})",
    R"("sequence_parallel_size": 2)",
    R"("seq_parallel_communication_data_type": "fp32")",
    R"("autotuning": {"enabled": true})",
    R"("compile": {"deepcompile": true})",
    R"("datastates": {})",
    R"("weight_quantization": {})",
    R"("log_level": "info")",
    R"("disable_allgather": true)",
    R"("fp16": {"auto_cast": true})",
    R"("fp16": {"fp16_master_weights_and_grads": true})",
    R"("bf16": {"immediate_grad_update": true})",
    R"("bf16": {"bf16_master_weights_and_grads": true})",
    R"("bf16": {"bf16_optimizer_states": true})",
    R"("data_types": {"grad_accum_dtype": "bf16"})",
    R"("data_types": {"param_dtype": "bf16"})",
    R"("data_types": {"buffer_dtype": "bf16"})",
    R"("data_types": {"keep_in_fp32_modules": ["norm"]})",
    R"("checkpoint": {"load_universal": true})",
    R"("checkpoint": {"use_node_local_storage": true})",
    R"("checkpoint": {"checkpoint_serialization": false})",
    R"("checkpoint": {"writer": {"type": "fast"}})",
    R"("zero_optimization": {"mics_shard_size": 2})",
    R"("zero_optimization": {"zeropp_loco_param": {}})",
    R"("zero_optimization": {"load_from_fp32_weights": false})",
    R"("zero_optimization": {"zero_hpz_partition_size": 8})",
    R"("zero_optimization": {"zero_quantized_weights": true})",
    R"("zero_optimization": {"zero_quantized_gradients": true})",
    R"("zero_optimization": {"zenflow": {}})",
    R"("zero_optimization": {"offload_optimizer": {"super_offload": true}})",
};

TEST(Refused, ByNameWithAReason) {
  for (const char* key : kRefused) {
    EXPECT_THAT(refusal(with(key)), HasSubstr(" is not supported: ")) << key;
  }
}

// What cannot change a result is no reason to end a run.
TEST(Refused, HintsOfOtherImplementationsGiveAWarning) {
  const char* const hints[] = {
      R"("zero_optimization": {"round_robin_gradients": true})",
      R"("zero_optimization": {"parameter_alignment": true})",
      R"("zero_optimization": {"compute_grad_norm": false})",
      R"("zero_optimization": {"legacy_stage1": true})",
      R"("zero_optimization": {"offload_optimizer": {"ratio": 0.5}})",
      R"("activation_checkpointing": {"partition_activations": true})",
      R"("zero_optimization": {"offload_param": {"device": "cpu"}})",
      R"("zero_optimization": {"cpu_offload_param": true})",
      R"("bf16": {"enabled": true, "loss_scale": 0})",
      R"("activation_checkpointing": {"number_checkpoints": 4})",
      R"("checkpoint": {"parallel_write": {"pipeline_stage": true}})",
      R"("use_data_before_expert_parallelism": true)",
      R"("optimizer": {"type": "Adam", "legacy_fusion": true})",
      R"("amp": {"enabled": "auto", "opt_level": "auto"})",
      R"("elasticity": {"enabled": false})",
      R"("autotuning": {"enabled": false, "fast": true})",
      R"("sparse_gradients": false)",
  };
  for (const char* hint : hints) {
    EXPECT_THAT(
        parse(with(hint)).warnings, ElementsAre(HasSubstr(" has no effect: ")))
        << hint;
  }
}

TEST(Refused, FeaturesMayStandInAFileSwitchedOff) {
  const Config config = parse(with(R"(
      "wandb": {"enabled": false, "project": "x"},
      "comet": {"enabled": false, "mode": "create"},
      "flops_profiler": {"enabled": false, "profile_step": 1},
      "comms_logger": {"enabled": false},
      "torch_autocast": {"enabled": false},
      "data_efficiency": {"enabled": false},
      "data_types": {"grad_accum_dtype": "fp32", "param_dtype": "fp32",
                     "keep_in_fp32_modules": "auto"},
      "checkpoint": {"load_universal": false, "tag_validation": "FAIL"},
      "activation_checkpointing": {"profile": false},
      "zero_allow_untested_optimizer": true,
      "sequence_parallel_size": 1)"));
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_EQ(config.checkpoint.tag_validation, TagValidation::fail);
}

TEST(Refused, HintsThatChangeNothingGiveAWarning) {
  const Config config = parse(with(R"(
      "aio": {"block_size": 1048576},
      "dataloader_drop_last": true,
      "disable_python_gc": true,
      "timers": {"throughput": {"enabled": false}},
      "vocabulary_size": 50265)"));
  EXPECT_THAT(
      config.warnings,
      testing::UnorderedElementsAre(
          HasSubstr("aio: has no effect"),
          HasSubstr("dataloader_drop_last: true has no effect"),
          HasSubstr("disable_python_gc: true has no effect"),
          HasSubstr("timers.throughput.enabled: false has no effect"),
          HasSubstr("50265 is no multiple of 8")));
}

// One text for each optimizer and scheduler, with all that is honoured.
std::vector<std::string> whole_texts() {
  const std::string optimizers[] = {
      R"({"type": "Adam", "params": {"lr": 0.1, "betas": [0.5, 0.25],
          "adam_w_mode": false, "torch_adam": true}})",
      R"({"type": "AdamW", "params": {"weight_decay": 0.3,
          "bias_correction": false}})",
      R"({"type": "SGD", "params": {"momentum": 0.9, "dampening": 0.5}})",
      R"({"type": "Lamb", "params": {"max_coeff": 5, "min_coeff": 0.1}})",
      "null",
  };
  const std::string schedulers[] = {
      R"({"type": "WarmupLR", "params": {"warmup_min_lr": [0.1, 0.2]}})",
      R"({"type": "WarmupDecayLR", "params": {"total_num_steps": 5000}})",
      R"({"type": "WarmupCosineLR", "params": {"total_num_steps": 5000,
          "cos_min_ratio": 0.5}})",
      R"({"type": "OneCycle", "params": {"cycle_min_lr": 0.1,
          "cycle_max_lr": 0.2, "cycle_momentum": false}})",
      R"({"type": "LRRangeTest", "params": {"lr_range_test_staircase": true}})",
  };
  std::vector<std::string> texts;
  for (size_t i = 0; i < std::size(schedulers); ++i) {
    texts.push_back(with(
        "\"optimizer\": " + optimizers[i] + ", \"scheduler\": " +
        schedulers[i] + R"(, "fp16": {"enabled": true, "hysteresis": 3},
             "gradient_clipping": 0.123456789012345678,
             "communication_data_type": "FP32", "prescale_gradients": true,
             "gradient_predivide_factor": 2, "gradient_allreduce_op": "SUM",
             "managed_gradient_accumulation": false, "steps_per_print": 7,
             "csv_monitor": {"enabled": true, "output_path": "a\"b\u00e4"},
             "checkpoint": {"tag_validation": "ignore"},
             "zero_optimization": {"stage": 2, "overlap_comm": false,
               "offload_optimizer": {"device": "cpu", "pin_memory": false}})"));
  }
  return texts;
}

TEST(Print, IsReadBackTheSame) {
  for (const std::string& text : whole_texts()) {
    const std::string printed = print_config(parse(text));
    const Config again = parse(printed);
    EXPECT_EQ(print_config(again), printed);
    EXPECT_THAT(again.warnings, IsEmpty());
  }
}

TEST(Print, ShowsWhatWasGivenAndWhatWasDerived) {
  const std::string printed = print_config(parse(whole_texts()[0], ranks(3)));
  for (const char* line :
       {"\"train_batch_size\": 6,\n",
        "\"lr\": 0.1,",
        "\"adam_w_mode\": false",
        "\"torch_adam\": true",
        "\"communication_data_type\": \"fp32\"",
        "\"gradient_clipping\": 0.12345678901234568",
        "\"gradient_allreduce_op\": \"sum\"",
        "\"hysteresis\": 3",
        "\"overlap_comm\": false",
        "\"device\": \"cpu\"",
        "\"pin_memory\": false",
        "\"tag_validation\": \"Ignore\""}) {
    EXPECT_THAT(printed, HasSubstr(line));
  }
}

// docs/configuration.md names each key that the parser knows, as
// `key` at the start of a table row or in a list of keys.
TEST(Documentation, NamesEveryKey) {
  std::ifstream file(std::string(DS_SOURCE_DIR) + "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  std::set<std::string> asked;
  for (const std::string& config : whole_texts()) {
    Document document("x", KeyLines());
    base::JsonOptions options;
    read_document(base::parse_json(config, "x", options), document, {});
    asked.insert(document.asked.begin(), document.asked.end());
  }
  EXPECT_GT(asked.size(), 200u);
  for (const std::string& path : asked) {
    const std::string key = path.substr(path.rfind('.') + 1);
    EXPECT_NE(text.str().find("`" + key + "`"), std::string::npos) << path;
  }
}

} // namespace
} // namespace deepspeed::config
