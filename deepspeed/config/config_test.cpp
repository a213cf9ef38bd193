// ds_config.json: values, defaults, warnings, and every refusal.
#include "deepspeed/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"

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

// A configuration whose batch sizes are right, with `rest` beside them.
std::string with(const std::string& rest) {
  return "{\"train_micro_batch_size_per_gpu\": 2" +
      (rest.empty() ? "" : ",\n" + rest) + "}";
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

TEST(Config, DefaultsAreThoseOfDeepSpeed) {
  const Config config = parse(with(""));
  EXPECT_EQ(config.train_batch_size, 2);
  EXPECT_EQ(config.gradient_accumulation_steps, 1);
  EXPECT_EQ(config.gradient_clipping, 1.0);
  EXPECT_EQ(config.steps_per_print, 0);
  EXPECT_EQ(config.optimizer.type, OptimizerType::none);
  EXPECT_EQ(config.scheduler.type, SchedulerType::none);
  EXPECT_EQ(config.dtype(), Dtype::fp32);
  EXPECT_EQ(config.fp16.initial_scale_power, 16);
  EXPECT_EQ(config.fp16.hysteresis, 2);
  EXPECT_TRUE(config.bf16.check_grad_overflow);
  EXPECT_EQ(config.zero_optimization.stage, 0);
  EXPECT_EQ(config.zero_optimization.reduce_bucket_size, 500'000'000);
  EXPECT_EQ(config.csv_monitor.job_name, "DeepSpeedJobName");
  EXPECT_EQ(config.data_types.grad_accum_dtype, Dtype::fp32);
  EXPECT_THAT(config.warnings, IsEmpty());
}

TEST(Config, ReadsHelloDeepSpeedsDictionary) {
  const Config config = parse(R"({
    "train_micro_batch_size_per_gpu": 8,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-4}},
    "bf16": {"enabled": true},
    "zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}
  })");
  EXPECT_EQ(config.optimizer.type, OptimizerType::adam);
  EXPECT_EQ(config.optimizer.params.lr, 1e-4);
  EXPECT_TRUE(config.optimizer.params.adam_w_mode);
  EXPECT_EQ(config.optimizer.params.weight_decay, 0.0);
  EXPECT_EQ(config.dtype(), Dtype::bf16);
  EXPECT_EQ(
      config.zero_optimization.offload_optimizer.device, OffloadDevice::cpu);
  EXPECT_TRUE(config.zero_optimization.offload_optimizer.pin_memory);
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_EQ(config.source["bf16"].dump(), R"({"enabled":true})");
}

TEST(Config, AllowsCommentsTrailingCommasAndIntegralFloats) {
  const Config config = parse(R"({
    // one
    "train_batch_size": 3.2e1, /* two */
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 5e6,},
  })");
  EXPECT_EQ(config.train_batch_size, 32);
  EXPECT_EQ(config.zero_optimization.reduce_bucket_size, 5'000'000);
}

TEST(Config, NullIsTheSameAsNoKey) {
  const Config config =
      parse(with(R"("steps_per_print": null, "fp16": null, "optimizer": null,
      "communication_data_type": null, "zero_optimization":
      {"overlap_comm": null, "zenflow": null}, "tensor_parallel": null)"));
  EXPECT_EQ(config.steps_per_print, 0);
  EXPECT_FALSE(config.communication_data_type);
  EXPECT_FALSE(config.zero_optimization.overlap_comm);
}

TEST(Config, UnknownKeysAreNamedWithTheirLineAndTheNearestKey) {
  EXPECT_EQ(
      refusal("{\n\"train_batch_size\": 4,\n\"gradient_acumulation_steps\": "
              "2}"),
      "error: unknown key \"gradient_acumulation_steps\"\n"
      "  ds.json:3 gradient_acumulation_steps\n"
      "  hint: did you mean \"gradient_accumulation_steps\"?\n");
  EXPECT_THAT(
      refusal(with("\"gradient_clippping\": 1")),
      HasSubstr("did you mean \"gradient_clipping\"?"));
  // A misspelt batch key is not reported as a missing one.
  EXPECT_THAT(
      refusal("{\"train_batchsize\": 4}"),
      HasSubstr("did you mean \"train_batch_size\"?"));
}

TEST(Config, UnknownKeysAreRefusedInEveryBlock) {
  const char* blocks[] = {
      R"("fp16": {"X": 1})",
      R"("bf16": {"X": 1})",
      R"("data_types": {"X": 1})",
      R"("zero_optimization": {"X": 1})",
      R"("zero_optimization": {"offload_optimizer": {"X": 1}})",
      R"("zero_optimization": {"offload_param": {"X": 1}})",
      R"("optimizer": {"type": "Adam", "X": 1})",
      R"("optimizer": {"type": "Adam", "params": {"X": 1}})",
      R"("optimizer": {"type": "SGD", "params": {"X": 1}})",
      R"("optimizer": {"type": "Lamb", "params": {"X": 1}})",
      R"("scheduler": {"type": "WarmupLR", "X": 1})",
      R"("scheduler": {"type": "WarmupLR", "params": {"X": 1}})",
      R"("scheduler": {"type": "LRRangeTest", "params": {"X": 1}})",
      R"("tensorboard": {"X": 1})",
      R"("csv_monitor": {"X": 1})",
      R"("checkpoint": {"X": 1})",
      R"("checkpoint": {"parallel_write": {"X": 1}})",
      R"("wandb": {"X": 1})",
      R"("comet": {"X": 1})",
      R"("flops_profiler": {"X": 1})",
      R"("comms_logger": {"X": 1})",
      R"("torch_autocast": {"X": 1})",
      R"("data_efficiency": {"X": 1})",
      R"("hybrid_engine": {"X": 1})",
      R"("aio": {"X": 1})",
      R"("timers": {"X": 1})",
      R"("timers": {"throughput": {"X": 1}})",
      R"("activation_checkpointing": {"X": 1})",
  };
  for (const char* block : blocks) {
    EXPECT_THAT(
        refusal(with(block)), HasSubstr("unknown key \"X\"\n  ds.json:2 "))
        << block;
  }
}

TEST(Config, ParametersOfAnotherOptimizerAreUnknown) {
  EXPECT_THAT(
      refusal(
          with(R"("optimizer": {"type": "Adam", "params": {"momentum": 0}})")),
      HasSubstr("unknown key \"momentum\""));
  EXPECT_THAT(
      refusal(with(R"("optimizer": {"type": "SGD", "params": {"eps": 0}})")),
      HasSubstr("unknown key \"eps\""));
}

TEST(Config, WrongTypesAreNamed) {
  EXPECT_EQ(
      refusal(with("\"gradient_clipping\": \"1.0\"")),
      "error: gradient_clipping must be a number, not \"1.0\"\n"
      "  ds.json:2 gradient_clipping\n"
      "  hint: write 1.0 without quotes\n");
  const std::pair<const char*, const char*> cases[] = {
      {R"("gradient_clipping": true)", "must be a number, not true"},
      {R"("steps_per_print": 2.5)", "must be an integer, not 2.5"},
      {R"("steps_per_print": "10")", "must be an integer, not \"10\""},
      {R"("steps_per_print": false)", "must be an integer, not false"},
      {R"("dump_state": 1)", "must be true or false, not 1"},
      {R"("fp16": true)", "fp16 must be an object, not true"},
      {R"("optimizer": [])", "optimizer must be an object, not []"},
      {R"("zero_optimization": 2)", "must be an object, not 2"},
      {R"("csv_monitor": {"output_path": 1})", "must be a text, not 1"},
      {R"("optimizer": {"type": "Adam", "params": {"betas": 0.9}})",
       "betas must be two numbers"},
      {R"("optimizer": {"type": "Adam", "params": {"betas": ["a", 0]}})",
       "betas must be a number, not [\"a\",0]"},
      {R"("optimizer": {"type": 3})", "type must be one of \"Adam\""},
      {R"("zero_optimization": {"sub_group_size": 1, "stage": "2"})",
       "stage must be an integer, not \"2\""},
      {R"("aio": 3)", "aio must be an object"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(refusal(with(text)), HasSubstr(message)) << text;
  }
  EXPECT_THAT(refusal("[1]"), HasSubstr("the configuration must be an object"));
}

TEST(Config, NumbersOutOfRangeAreNamed) {
  EXPECT_EQ(
      refusal(with("\"gradient_clipping\": -1")),
      "error: gradient_clipping is -1\n  ds.json:2 gradient_clipping\n"
      "  hint: it must be at least 0\n");
  const char* cases[] = {
      R"("steps_per_print": -1)",
      R"("steps_per_print": 1e30)",
      R"("steps_per_print": 18446744073709551615)",
      R"("gradient_accumulation_steps": 0)",
      R"("gradient_predivide_factor": 0)",
      R"("fp16": {"loss_scale": -1})",
      R"("fp16": {"initial_scale_power": 65})",
      R"("fp16": {"loss_scale_window": 0})",
      R"("fp16": {"hysteresis": 0})",
      R"("fp16": {"min_loss_scale": 0})",
      R"("fp16": {"min_loss_scale": 100000})",
      R"("optimizer": {"type": "Adam", "params": {"lr": -1}})",
      R"("optimizer": {"type": "Adam", "params": {"eps": -1}})",
      R"("optimizer": {"type": "Adam", "params": {"betas": [0.9, 1.0]}})",
      R"("optimizer": {"type": "SGD", "params": {"momentum": -0.1}})",
      R"("optimizer": {"type": "Lamb", "params": {"max_coeff": 0}})",
      R"("optimizer": {"type": "Lamb", "params": {"min_coeff": 11}})",
      R"("scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": -1}})",
      R"("scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": []}})",
      R"("zero_optimization": {"stage": 4})",
      R"("zero_optimization": {"stage": -1})",
      R"("zero_optimization": {"reduce_bucket_size": 0})",
  };
  for (const char* text : cases) {
    refusal(with(text));
  }
}

TEST(Config, LimitsAreShownAsIntegers) {
  EXPECT_THAT(
      refusal(with("\"steps_per_print\": 1e17")),
      HasSubstr("steps_per_print is 100000000000000000\n"));
  EXPECT_THAT(
      refusal(with("\"steps_per_print\": 1e17")),
      HasSubstr("at most 9007199254740992"));
}

TEST(Config, ADynamicLossScaleIsZero) {
  EXPECT_THAT(
      refusal(with(R"("fp16": {"loss_scale": "dynamic"})")),
      HasSubstr("write \"loss_scale\": 0"));
}

TEST(Config, TextThatIsNotJsonIsAConfigurationError) {
  EXPECT_EQ(
      refusal("{\"train_batch_size\": 4,\n\"gradient_clipping\": 1e400}"),
      "error: not valid JSON: number overflow parsing '1e400'\n"
      "  ds.json:2:26\n");
  EXPECT_THAT(refusal("{\"train_batch_size\": NaN}"), HasSubstr("ds.json:1:"));
  EXPECT_THAT(
      refusal("{\"train_batch_size\": 4, \"train_batch_size\": 4}"),
      HasSubstr("duplicate key \"train_batch_size\""));
  refusal("");
  refusal("{'train_batch_size': 4}");
}

TEST(Config, NotFiniteNumbersInAnObjectAreRefused) {
  base::Json json = {
      {"train_batch_size", 4}, {"gradient_clipping", std::nan("")}};
  EXPECT_THROW(parse_config(json, "x", {}), Error);
  json["gradient_clipping"] = HUGE_VAL;
  EXPECT_THROW(parse_config(json, "x", {}), Error);
  json["gradient_clipping"] = 1;
  json["train_batch_size"] = std::nan("");
  EXPECT_THROW(parse_config(json, "x", {}), Error);
}

TEST(Config, AnObjectHasNoLines) {
  try {
    parse_config(base::Json{{"bf16", {{"enable", true}}}}, "initialize", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "initialize bf16.enable");
  }
}

TEST(Config, Fp16AndBf16ExcludeEachOther) {
  EXPECT_THAT(
      refusal(with(R"("fp16": {"enabled": true}, "bf16": {"enabled": true})")),
      HasSubstr("fp16 and bf16 are both enabled"));
  EXPECT_EQ(
      parse(with(R"("fp16": {"enabled": true}, "bf16": {"enabled": false})"))
          .dtype(),
      Dtype::fp16);
}

TEST(Config, LossScaleIsDynamicUnlessGiven) {
  EXPECT_TRUE(parse(with(R"("fp16": {"enabled": true})")).dynamic_loss_scale());
  EXPECT_FALSE(parse(with(R"("fp16": {"enabled": true, "loss_scale": 128})"))
                   .dynamic_loss_scale());
  EXPECT_FALSE(parse(with("")).dynamic_loss_scale());
}

TEST(Config, OptimizersAndTheirDefaults) {
  auto optimizer = [](const std::string& text) {
    return parse(with("\"optimizer\": " + text)).optimizer;
  };
  EXPECT_EQ(optimizer(R"({"type": "adamw"})").type, OptimizerType::adamw);
  EXPECT_EQ(optimizer(R"({"type": "LAMB"})").params.max_coeff, 10.0);
  EXPECT_EQ(
      optimizer(R"({"type": "AdamW", "params": {"torch_adam": true}})")
          .params.weight_decay,
      0.01);
  EXPECT_EQ(
      optimizer(
          R"({"type": "Adam", "params": {"torch_adam": true,
              "adam_w_mode": false}})")
          .params.weight_decay,
      0.0);
  const Optimizer sgd = optimizer(
      R"({"type": "SGD", "params": {"momentum": 0.9, "nesterov": true}})");
  EXPECT_EQ(sgd.params.momentum, 0.9);
  EXPECT_TRUE(sgd.params.nesterov);
}

TEST(Config, OptimizerMistakes) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"params": {}})", "optimizer has no type"},
      {R"({"type": "Lion"})", "the optimizer Lion is not implemented"},
      {R"({"type": "OneBitAdam"})", "OneBitAdam is not implemented"},
      {R"({"type": "Adm"})", "did you mean \"Adam\"?"},
      {R"({"type": "Adam", "params": {"max_grad_norm": 1}})",
       "\"gradient_clipping\""},
      {R"({"type": "AdamW", "params": {"adam_w_mode": false}})",
       "use \"type\": \"Adam\""},
      {R"({"type": "Adam", "params": {"amsgrad": true}})", "AMSGrad"},
      {R"({"type": "Adam", "params": {"fp32_optimizer_states": false}})",
       "the moments are always fp32"},
      {R"({"type": "Adam", "params": {"torch_adam": true,
           "bias_correction": false}})",
       "always corrects the bias"},
      {R"({"type": "SGD", "params": {"nesterov": true}})", "needs a momentum"},
      {R"({"type": "SGD", "params": {"maximize": true}})", "minimizing"},
      {R"({"type": "Lamb", "params": {"eps_inside_sqrt": true}})", "eps"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(
        refusal(with(std::string("\"optimizer\": ") + text)),
        HasSubstr(message))
        << text;
  }
}

TEST(Config, SchedulersAndTheirDefaults) {
  auto scheduler = [](const std::string& text) {
    return parse(with("\"scheduler\": " + text)).scheduler;
  };
  const Scheduler warmup = scheduler(R"({"type": "WarmupLR"})");
  EXPECT_THAT(warmup.params.warmup_min_lr, ElementsAre(0.0));
  EXPECT_THAT(warmup.params.warmup_max_lr, IsEmpty()); // the optimizer's
  EXPECT_EQ(warmup.params.warmup_num_steps, 1000);
  EXPECT_EQ(warmup.params.warmup_type, WarmupType::log);
  const Scheduler decay = scheduler(
      R"({"type": "WarmupDecayLR", "params": {"total_num_steps": 2000,
          "warmup_type": "linear", "warmup_min_lr": [0, 1e-5]}})");
  EXPECT_THAT(decay.params.warmup_max_lr, ElementsAre(0.001));
  EXPECT_THAT(decay.params.warmup_min_lr, ElementsAre(0.0, 1e-5));
  EXPECT_EQ(decay.params.warmup_type, WarmupType::linear);
  const Scheduler cycle = scheduler(
      R"({"type": "OneCycle", "params": {"cycle_min_lr": 0,
          "cycle_max_lr": 1, "cycle_first_step_size": 7,
          "cycle_first_stair_count": 3}})");
  EXPECT_EQ(cycle.params.cycle_second_step_size, 7);
  EXPECT_EQ(cycle.params.cycle_second_stair_count, 3);
}

TEST(Config, SchedulerMistakes) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "scheduler has no type"},
      {R"({"type": "WarmupLr"})", "did you mean \"WarmupLR\"?"},
      {R"({"type": "StepLR"})", "type cannot be \"StepLR\""},
      {R"({"type": "WarmupDecayLR"})", "needs total_num_steps"},
      {R"({"type": "WarmupCosineLR", "params": {"total_num_steps": 10}})",
       "total_num_steps 10 is less than warmup_num_steps 1000"},
      {R"({"type": "WarmupLR", "params": {"warmup_type": "cubic"}})",
       "warmup_type cannot be \"cubic\""},
      {R"({"type": "OneCycle", "params": {"cycle_min_lr": 0}})",
       "OneCycle needs cycle_max_lr"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(
        refusal(with(std::string("\"scheduler\": ") + text)),
        HasSubstr(message))
        << text;
  }
}

TEST(Config, OneCycleWithoutBetasKeepsTheMomentum) {
  const Config config = parse(
      with(R"("optimizer": {"type": "SGD"}, "scheduler": {"type": "OneCycle",
      "params": {"cycle_min_lr": 0, "cycle_max_lr": 1}})"));
  EXPECT_FALSE(config.scheduler.params.cycle_momentum);
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("no effect")));
}

TEST(Config, ReadsAFile) {
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/ds_config.json";
  std::ofstream(path) << with("\"gradient_clipping\": 0.5");
  EXPECT_EQ(read_config(path, {}).gradient_clipping, 0.5);
  try {
    read_config(folder.path() + "/none.json", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::no_input);
  }
}

TEST(Config, HostileKeysAreShownInOneLine) {
  const std::string long_key(100'000, 'x');
  EXPECT_LT(refusal("{\"" + long_key + "\": 1}").size(), 1000u);
  EXPECT_THAT(refusal(R"({"a\u001b[2Jb\n": 1})"), Not(HasSubstr("\x1b")));
}

TEST(Config, LargePathsCostNoMemory) {
  // 50 nested objects with long names, many keys below: paths would be 1 GB.
  std::string text = "{\"train_batch_size\": 1";
  for (int i = 0; i < 50; ++i) {
    text += ",\"" + std::string(4000, 'a') + "\": {\"x\": 1";
  }
  for (int i = 0; i < 5000; ++i) {
    text += ",\"k" + std::to_string(i) + "\": 1";
  }
  refusal(text + std::string(51, '}'));
}

} // namespace
} // namespace deepspeed::config
