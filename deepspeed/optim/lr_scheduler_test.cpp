// The schedules against values that DeepSpeed itself gave.
#include "deepspeed/optim/lr_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/config/config.h"
#include "deepspeed/file/json_file.h"

namespace deepspeed::optim {
namespace {

using base::Json;

config::Scheduler scheduler_of(const Json& json) {
  const Json whole = {{"train_batch_size", 1}, {"scheduler", json}};
  return config::parse_config(whole, "test", {}).scheduler;
}

// Made by tests/golden/make_schedule_golden.py.
Json golden() {
  return file::read_json(
      std::string(DS_SOURCE_DIR) + "/tests/golden/schedules/schedules.json",
      1 << 20);
}

TEST(LrScheduler, GivesDeepSpeedsValues) {
  size_t cases = 0;
  for (const Json& one : golden()) {
    SCOPED_TRACE(one["scheduler"].dump());
    LrScheduler scheduler(
        scheduler_of(one["scheduler"]),
        one["group_lrs"].get<std::vector<double>>());
    for (size_t i = 0; i < one["lr"].size(); ++i) {
      for (size_t group = 0; group < one["group_lrs"].size(); ++group) {
        SCOPED_TRACE(scheduler.last_batch_iteration());
        EXPECT_DOUBLE_EQ(
            scheduler.lr(group), one["lr"][i][group].get<double>());
        const auto betas = scheduler.betas(group);
        ASSERT_EQ(betas.has_value(), one.contains("betas"));
        if (betas) {
          EXPECT_DOUBLE_EQ(
              (*betas)[0], one["betas"][i][group][0].get<double>());
          EXPECT_EQ((*betas)[1], one["betas"][i][group][1].get<double>());
        }
      }
      scheduler.step();
    }
    ++cases;
  }
  EXPECT_EQ(cases, 19u);
}

TEST(LrScheduler, GoesOnFromItsState) {
  for (const Json& one : golden()) {
    const auto group_lrs = one["group_lrs"].get<std::vector<double>>();
    LrScheduler through(scheduler_of(one["scheduler"]), group_lrs);
    for (int i = 0; i < 9; ++i) {
      through.step();
    }
    LrScheduler resumed(scheduler_of(one["scheduler"]), group_lrs);
    resumed.set_last_batch_iteration(through.last_batch_iteration());
    EXPECT_EQ(resumed.lr(0), through.lr(0));
    EXPECT_EQ(resumed.betas(0), through.betas(0));
  }
}

TEST(LrScheduler, WithoutATypeKeepsTheLearningRates) {
  LrScheduler scheduler(config::Scheduler{}, {0.5, 0.25});
  scheduler.step();
  EXPECT_EQ(scheduler.lr(0), 0.5);
  EXPECT_EQ(scheduler.lr(1), 0.25);
  EXPECT_FALSE(scheduler.betas(1));
  EXPECT_EQ(scheduler.last_batch_iteration(), 0);
}

TEST(LrScheduler, RefusesListsOfAnotherLength) {
  const Json json = {
      {"type", "WarmupLR"}, {"params", {{"warmup_min_lr", {0.0, 0.1}}}}};
  EXPECT_NO_THROW(LrScheduler(scheduler_of(json), {1.0, 2.0}));
  try {
    LrScheduler(scheduler_of(json), {1.0, 2.0, 3.0});
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::config);
    EXPECT_THAT(
        error.report(),
        testing::HasSubstr("warmup_min_lr has 2 values for 3 param groups"));
  }
}

TEST(LrScheduler, RefusesAnImpossibleState) {
  LrScheduler scheduler(config::Scheduler{}, {1.0});
  scheduler.set_last_batch_iteration(-1);
  EXPECT_THROW(scheduler.set_last_batch_iteration(-2), base::Error);
}

} // namespace
} // namespace deepspeed::optim
