// Schedules against values printed by transformers.optimization (5.23).
#include "deepspeed/optim/schedule.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::optim {
namespace {

TEST(Schedule, ConstantIgnoresTheStep) {
  const Schedule schedule{ScheduleType::constant, 1e-4, 10, 100};
  EXPECT_DOUBLE_EQ(schedule.at(0), 1e-4);
  EXPECT_DOUBLE_EQ(schedule.at(1000), 1e-4);
}

TEST(Schedule, WarmsUpFromZero) {
  for (auto type :
       {ScheduleType::constant_with_warmup,
        ScheduleType::linear,
        ScheduleType::cosine}) {
    const Schedule schedule{type, 2e-4, 4, 100};
    EXPECT_DOUBLE_EQ(schedule.at(0), 0);
    EXPECT_DOUBLE_EQ(schedule.at(1), 0.5e-4);
    EXPECT_DOUBLE_EQ(schedule.at(4), 2e-4);
  }
}

TEST(Schedule, LinearReachesZeroAtTheEnd) {
  const Schedule schedule{ScheduleType::linear, 1e-4, 10, 110};
  EXPECT_DOUBLE_EQ(schedule.at(60), 0.5e-4);
  EXPECT_DOUBLE_EQ(schedule.at(110), 0);
  EXPECT_DOUBLE_EQ(schedule.at(200), 0);
}

TEST(Schedule, CosineIsHalfWayInTheMiddle) {
  const Schedule schedule{ScheduleType::cosine, 1e-4, 10, 110};
  EXPECT_NEAR(schedule.at(60), 0.5e-4, 1e-18);
  EXPECT_NEAR(schedule.at(35), 8.535533905932738e-05, 1e-18);
  EXPECT_NEAR(schedule.at(110), 0, 1e-18);
}

TEST(Schedule, KnowsItsNames) {
  EXPECT_EQ(parse_schedule_type("cosine"), ScheduleType::cosine);
  EXPECT_THROW(parse_schedule_type("cosin"), base::Error);
}

} // namespace
} // namespace deepspeed::optim
