// ds_config.json files as other programs bring them, beside the flags.
#include "deepspeed/pretrain/engine_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::pretrain {
namespace {

using base::Json;
using testing::HasSubstr;
using Given = std::set<std::string>;

const std::filesystem::path kFiles =
    std::filesystem::path(DS_SOURCE_DIR) / "tests" / "ds_configs";

settings::Settings with_file(const std::string& path) {
  settings::Settings settings = settings::engine_defaults();
  settings.engine.deepspeed_config = path;
  return settings;
}

std::string refusal(const settings::Settings& settings, const Given& given) {
  try {
    settings::validate(settings);
    engine_config(settings, given, 2);
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::config) << error.report();
    return error.report();
  }
  return "";
}

class WrittenConfig : public testing::Test {
 protected:
  settings::Settings settings(const std::string& rest) {
    const std::string path = folder_.path() + "/ds_config.json";
    file::write_file_atomically(
        path, "{\"train_micro_batch_size_per_gpu\": \"auto\"" + rest + "}");
    return with_file(path);
  }

  file::TemporaryFolder folder_;
};

// Without a flag, and with all flags that "auto" may take the value of.
TEST(PublicConfigs, AllBelowStageThreeRun) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFiles)) {
    const std::string path = entry.path();
    if (entry.path().stem() == "stage3") {
      EXPECT_THAT(refusal(with_file(path), {}), HasSubstr("not implemented"));
      continue;
    }
    ++files;
    EXPECT_EQ(refusal(with_file(path), {}), "") << path;
    for (const char* dtype : {"fp32", "bf16", "fp16"}) {
      settings::Settings settings = with_file(path);
      settings.machine.dtype = dtype;
      settings.engine.zero_stage = 2;
      EXPECT_EQ(refusal(settings, {}), "") << path;
    }
  }
  EXPECT_GE(files, 20);
}

TEST(PublicConfigs, AutoTakesTheFlags) {
  settings::Settings settings = with_file(kFiles / "trainer_zero2.json");
  settings.machine.dtype = "fp16";
  settings.optimizer.warmup_steps = 2;
  settings.optimizer.learning_rate = 0.5;
  const Given given{"dtype", "warmup_steps", "learning_rate", "zero_stage"};
  settings.engine.zero_stage = 2; // what the file says, too
  EXPECT_EQ(refusal(settings, given), "");
  const config::Config config = engine_config(settings, given, 1);
  EXPECT_TRUE(config.fp16.enabled);
  EXPECT_EQ(config.scheduler.params.warmup_num_steps, 2);
  EXPECT_EQ(config.scheduler.params.warmup_max_lr[0], 0.5);
}

TEST(PublicConfigs, WithoutAnOptimizerItIsTheFlags) {
  settings::Settings settings =
      with_file(kFiles / "fine_tuning_zero2_no_optimizer.json");
  settings.optimizer.learning_rate = 0.25;
  settings.optimizer.weight_decay = 0.125;
  const config::Config config =
      engine_config(settings, {"learning_rate", "weight_decay"}, 1);
  EXPECT_EQ(config.optimizer.type, config::OptimizerType::adam);
  EXPECT_EQ(config.optimizer.params.lr, 0.25);
  EXPECT_EQ(config.optimizer.params.weight_decay, 0.125);
  EXPECT_THAT(
      config.warnings,
      testing::Contains(HasSubstr("the program's own optimizer")));
}

TEST_F(WrittenConfig, AFlagThatSaysSomethingElseIsRefused) {
  settings::Settings s = settings(R"(, "zero_optimization": {"stage": 1})");
  s.engine.offload_optimizer = "none";
  s.machine.dtype = "fp32";
  const Given given{"dtype", "zero_stage", "offload_optimizer"};
  EXPECT_EQ(refusal(s, given), ""); // the same
  s.engine.zero_stage = 2;
  EXPECT_THAT(
      refusal(s, given),
      HasSubstr("--zero_stage 2, but the configuration says 1"));
  s.engine.zero_stage = 1;
  s.machine.dtype = "bf16";
  EXPECT_THAT(refusal(s, given), HasSubstr("--dtype bf16, but the"));
  EXPECT_EQ(refusal(s, {}), ""); // a default is no contradiction
}

TEST_F(WrittenConfig, WarmUpWithoutASchedulerIsRefused) {
  settings::Settings s = settings("");
  s.optimizer.warmup_steps = 2;
  EXPECT_THAT(refusal(s, {}), HasSubstr("has no effect with a constant"));
  s.optimizer.lr_scheduler_type = "linear";
  EXPECT_EQ(refusal(s, {"lr_scheduler_type", "warmup_steps"}), "");
}

TEST_F(WrittenConfig, FlagsThatAWrittenSchedulerDoesNotTakeAreRefused) {
  settings::Settings s = settings(
      R"(, "scheduler": {"type": "WarmupLR", "params":
          {"warmup_num_steps": 4, "warmup_max_lr": 0.5}})");
  EXPECT_EQ(refusal(s, {}), "");
  s.optimizer.warmup_steps = 2;
  EXPECT_THAT(
      refusal(s, {"warmup_steps"}), HasSubstr("says warmup_num_steps 4"));
  s.optimizer.warmup_steps = 4;
  EXPECT_EQ(refusal(s, {"warmup_steps"}), "");
  s.optimizer.learning_rate = 0.25;
  EXPECT_THAT(refusal(s, {"learning_rate"}), HasSubstr("warmup_max_lr"));
  EXPECT_THAT(refusal(s, {"lr_scheduler_type"}), HasSubstr("has a scheduler"));
}

// Without a file: HelloDeepSpeed's dictionary with what the flags change.
TEST(FlagConfig, SaysWhatTheFlagsSayAndIsTakenBackWhole) {
  settings::Settings s = settings::engine_defaults();
  settings::Settings same = s;
  adopt_config(config::Config(), same); // the defaults of both
  EXPECT_EQ(same.optimizer.max_grad_norm, s.optimizer.max_grad_norm);
  EXPECT_EQ(same.optimizer.adam_beta2, s.optimizer.adam_beta2);
  EXPECT_EQ(same.optimizer.adam_epsilon, s.optimizer.adam_epsilon);
  EXPECT_EQ(same.optimizer.weight_decay, s.optimizer.weight_decay);
  s.optimizer.batch_size = 6;
  s.optimizer.gradient_accumulation_steps = 5;
  s.optimizer.max_grad_norm = 0; // not clipped
  s.optimizer.adam_beta2 = 0.5;
  s.optimizer.adam_epsilon = 0.25;
  s.optimizer.weight_decay = 0.125;
  s.machine.dtype = "bf16";
  s.engine.zero_stage = 2;
  const config::Config config = engine_config(s, {}, 2);
  EXPECT_EQ(config.train_batch_size, 6 * 5 * 2);
  EXPECT_EQ(config.gradient_clipping, 0);
  EXPECT_EQ(config.optimizer.params.betas[1], 0.5);
  EXPECT_EQ(config.dtype(), config::Dtype::bf16);
  settings::Settings taken = settings::engine_defaults();
  adopt_config(config, taken);
  EXPECT_THAT(settings::differences(s, taken), testing::IsEmpty());
}

std::vector<std::string> told(const Json& saved, const Json& now) {
  std::vector<std::string> lines;
  for (const settings::SettingChange& change :
       config_changes(saved.dump(), now.dump())) {
    lines.push_back(change.name + " " + change.from + " -> " + change.to);
  }
  return lines;
}

TEST(ConfigChanges, TellWhatSettingsDoNot) {
  const Json saved = Json::parse(
      R"({"gradient_clipping": 1.0, "fp16": {"hysteresis": 2},
          "optimizer": {"type": "Adam", "params": {"lr": 0.5}},
          "scheduler": {"type": "WarmupLR", "params":
              {"warmup_num_steps": 4}}})");
  EXPECT_THAT(told(saved, saved), testing::IsEmpty());
  Json now = saved;
  now["gradient_clipping"] = 2; // a setting, as lr
  now["optimizer"]["params"]["lr"] = 0.25;
  now["key_of_a_later_version"] = 1;
  EXPECT_THAT(told(saved, now), testing::IsEmpty());
  now["fp16"]["hysteresis"] = 3;
  now["scheduler"]["params"]["warmup_num_steps"] = 8;
  now["optimizer"]["type"] = "SGD";
  EXPECT_THAT(
      told(saved, now),
      testing::ElementsAre(
          "fp16.hysteresis 2 -> 3",
          R"(optimizer.type "Adam" -> "SGD")",
          "scheduler.params.warmup_num_steps 4 -> 8"));
  now = saved;
  now.erase("scheduler");
  EXPECT_THAT(
      told(saved, now),
      testing::Contains(R"(scheduler.type "WarmupLR" -> null)"));
}

} // namespace
} // namespace deepspeed::pretrain
