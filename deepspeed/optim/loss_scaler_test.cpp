// The loss scale against what DeepSpeed's scaler did on random overflows.
#include "deepspeed/optim/loss_scaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/config/config.h"
#include "deepspeed/file/json_file.h"

namespace deepspeed::optim {
namespace {

using base::Json;
using testing::HasSubstr;

config::Fp16 fp16_of(const Json& json) {
  const Json whole = {{"train_batch_size", 1}, {"fp16", json}};
  return config::parse_config(whole, "test", {}).fp16;
}

// Made by tests/golden/make_schedule_golden.py.
TEST(LossScaler, FollowsDeepSpeed) {
  const Json golden = file::read_json(
      std::string(DS_SOURCE_DIR) + "/tests/golden/schedules/loss_scales.json",
      1 << 20);
  int raised = 0;
  for (const Json& one : golden) {
    SCOPED_TRACE(one["fp16"].dump());
    LossScaler scaler(fp16_of(one["fp16"]));
    const std::string overflow = one["overflow"].get<std::string>();
    const size_t good = one["scale"].size();
    for (size_t i = 0; i < good; ++i) {
      scaler.update(overflow[i] == '1');
      ASSERT_EQ(scaler.scale(), one["scale"][i].get<double>()) << i;
    }
    if (one["raised"].get<bool>()) {
      EXPECT_THROW(scaler.update(overflow[good] == '1'), base::Error);
      ++raised;
    }
    EXPECT_EQ(scaler.state().iteration, one["iteration"].get<int64_t>());
    EXPECT_EQ(
        scaler.state().last_overflow, one["last_overflow"].get<int64_t>());
    EXPECT_EQ(scaler.state().hysteresis, one["hysteresis"].get<int64_t>());
  }
  EXPECT_EQ(golden.size(), 17u);
  EXPECT_GE(raised, 3);
}

TEST(LossScaler, StopsAtTheMinimumWithAHint) {
  LossScaler scaler(fp16_of(
      {{"enabled", true}, {"initial_scale_power", 1}, {"hysteresis", 1}}));
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 1.0);
  try {
    scaler.update(true);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::internal);
    EXPECT_THAT(error.report(), HasSubstr("smallest loss scale, 1\n"));
    EXPECT_THAT(error.report(), HasSubstr("step 2"));
    EXPECT_THAT(error.report(), HasSubstr("use bf16"));
  }
  EXPECT_EQ(scaler.state().iteration, 1); // unchanged: can be saved
}

TEST(LossScaler, IsFixedOrOneWhereItIsNotDynamic) {
  LossScaler fixed(fp16_of({{"enabled", true}, {"loss_scale", 128}}));
  LossScaler off(fp16_of({{"enabled", false}, {"loss_scale", 128}}));
  for (int i = 0; i < 10; ++i) {
    fixed.update(i % 2 == 0);
    off.update(true);
  }
  EXPECT_EQ(fixed.scale(), 128.0);
  EXPECT_EQ(off.scale(), 1.0);
  EXPECT_FALSE(fixed.dynamic());
  EXPECT_FALSE(off.dynamic());
}

TEST(LossScaler, GoesOnFromItsState) {
  const config::Fp16 fp16 =
      fp16_of({{"enabled", true}, {"loss_scale_window", 3}});
  LossScaler through(fp16);
  LossScaler resumed(fp16);
  for (int i = 0; i < 40; ++i) {
    const bool overflow = i % 7 == 3 || i % 11 == 5;
    through.update(overflow);
    resumed.update(overflow);
    LossScaler next(fp16);
    next.set_state(resumed.state());
    resumed = next;
    ASSERT_EQ(resumed.scale(), through.scale());
  }
}

TEST(LossScaler, StaysFinite) {
  LossScaler scaler(fp16_of({{"enabled", true}, {"loss_scale_window", 1}}));
  for (int i = 0; i < 5000; ++i) {
    scaler.update(false);
  }
  EXPECT_EQ(scaler.scale(), 0x1p120);
}

TEST(LossScaler, RefusesAnImpossibleState) {
  LossScaler scaler(fp16_of({{"enabled", true}}));
  LossScaler::State state = scaler.state();
  for (const double scale : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    state.scale = scale;
    EXPECT_THROW(scaler.set_state(state), base::Error);
  }
  state = scaler.state();
  state.hysteresis = 0;
  EXPECT_THROW(scaler.set_state(state), base::Error);
  state = scaler.state();
  state.last_overflow = 7;
  EXPECT_THROW(scaler.set_state(state), base::Error);
}

} // namespace
} // namespace deepspeed::optim
