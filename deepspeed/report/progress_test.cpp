// Progress as text, with a clock that stands still.
#include "deepspeed/report/progress.h"

#include <gtest/gtest.h>

#include <limits>

#include "deepspeed/base/number_text.h"

namespace deepspeed::report {
namespace {

StepStatus status(int64_t step) {
  StepStatus s;
  s.step = step;
  s.loss = 6.82131;
  s.learning_rate = 9.6e-5;
  s.grad_norm = 1.917;
  s.tokens_per_second = 31234;
  s.memory_bytes = 3328599654; // 3.1 GiB
  return s;
}

class ProgressTest : public testing::Test {
 protected:
  ProgressOptions options(int columns, int64_t first_step = 0) {
    ProgressOptions o;
    o.first_step = first_step;
    o.total_steps = 10000;
    o.columns = columns;
    o.write = [this](std::string_view text) { shown += text; };
    o.now = [this] { return time; };
    return o;
  }
  // What was shown since the last call.
  std::string take() {
    return std::exchange(shown, "");
  }

  std::string shown;
  double time = 1000;
};

TEST(StatusLine, ShowsEverythingKnown) {
  EXPECT_EQ(
      status_line(status(1200), 10000, 4320),
      "step  1200/10000 12.0% | loss 6.8213 | lr 9.6e-05 | gnorm 1.92 | "
      "31.2k tok/s | mem 3.1 GiB | ETA 1h12m");
  EXPECT_EQ(
      status_line({3, {}, {}, {}, {}, 0}, 10000, -1), "step     3/10000  0.0%");
}

TEST(StatusLine, ALossThatBrokeIsShown) {
  StepStatus s = status(1);
  s.loss = std::numeric_limits<double>::quiet_NaN();
  s.grad_norm = std::numeric_limits<double>::infinity();
  EXPECT_NE(status_line(s, 10, -1).find("| loss nan |"), std::string::npos);
  EXPECT_NE(status_line(s, 10, -1).find("| gnorm inf |"), std::string::npos);
}

TEST(StatusLine, FitsNarrowTerminals) {
  const StepStatus s = status(1200);
  EXPECT_EQ(
      status_line(s, 10000, 4320, 90),
      "step  1200/10000 12.0% | loss 6.8213 | lr 9.6e-05 | gnorm 1.92 | "
      "31.2k tok/s | ETA 1h12m");
  EXPECT_EQ(
      status_line(s, 10000, 4320, 60),
      "step  1200/10000 12.0% | loss 6.8213 | ETA 1h12m");
  EXPECT_EQ(status_line(s, 10000, 4320, 5), "step  1200/10000 12.0%");
}

TEST_F(ProgressTest, LinesOnlyAtLogStepsWithoutATerminal) {
  Progress progress(options(0));
  progress.step(status(1), false);
  EXPECT_EQ(take(), "");
  time += 10;
  progress.step(status(10), true);
  EXPECT_EQ(take(), status_line(status(10), 10000, 9990) + "\n");
}

TEST_F(ProgressTest, AtLeastALineAMinute) {
  Progress progress(options(0));
  time += 59;
  progress.step(status(1), false);
  EXPECT_EQ(take(), "");
  time += 1;
  progress.step(status(2), false);
  EXPECT_NE(take().find("step     2/10000"), std::string::npos);
  time += 59;
  progress.step(status(3), false);
  EXPECT_EQ(take(), "");
}

TEST_F(ProgressTest, TimeLeftCountsFromTheResumedStep) {
  Progress progress(options(0, 9000));
  time += 10;
  progress.step(status(9100), true); // 100 steps in 10 s, 900 to go
  EXPECT_TRUE(take().ends_with("| ETA 1m30s\n"));
}

TEST_F(ProgressTest, ATerminalIsRedrawnFiveTimesASecond) {
  Progress progress(options(200));
  progress.step(status(1), false);
  EXPECT_EQ(take().find("\r\x1b[Kstep     1/10000"), 0u);
  time += 0.19;
  progress.step(status(2), true);
  EXPECT_EQ(take(), "");
  time += 0.02;
  progress.step(status(3), false);
  const std::string line = take();
  EXPECT_EQ(line.find("\r\x1b[Kstep     3/10000"), 0u);
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

TEST_F(ProgressTest, AMessageStandsAboveTheStatusLine) {
  Progress progress(options(200));
  progress.message("starting");
  EXPECT_EQ(take(), "starting\n");
  progress.step(status(1), false);
  take();
  progress.message("saved checkpoint.iter_1.pt");
  EXPECT_EQ(
      take().find("\r\x1b[Ksaved checkpoint.iter_1.pt\n\r\x1b[Kstep"), 0u);
}

TEST_F(ProgressTest, TheLastStepIsShown) {
  {
    Progress progress(options(200));
    progress.step(status(1), false);
    progress.step(status(2), false);
    take();
    progress.finish();
    EXPECT_NE(shown.find("step     2/10000"), std::string::npos);
    EXPECT_EQ(take().back(), '\n');
  }
  EXPECT_EQ(take(), ""); // the destructor has nothing to add
  {
    Progress progress(options(0));
    progress.step(status(7), false);
  }
  EXPECT_NE(take().find("step     7/10000"), std::string::npos);
}

TEST(TextFormat, Numbers) {
  EXPECT_EQ(base::format_count(16345177), "16,345,177");
  EXPECT_EQ(base::format_count(-1000), "-1,000");
  EXPECT_EQ(base::format_count(999), "999");
  EXPECT_EQ(base::format_bytes(0), "0 B");
  EXPECT_EQ(base::format_bytes(1023), "1023 B");
  EXPECT_EQ(base::format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(base::format_bytes(1048575), "1.0 MiB"); // not 1024.0 KiB
  EXPECT_EQ(base::format_bytes(uint64_t{3} << 60), "3072.0 PiB");
  EXPECT_EQ(base::format_rate(9.94), "9.9");
  EXPECT_EQ(base::format_rate(314.2), "314");
  EXPECT_EQ(base::format_rate(31234), "31.2k");
  EXPECT_EQ(base::format_rate(999960), "1.0M");
}

TEST(TextFormat, Durations) {
  EXPECT_EQ(base::format_duration(0.26), "0.3s");
  EXPECT_EQ(base::format_duration(9.96), "10s");
  EXPECT_EQ(base::format_duration(59.6), "1m00s");
  EXPECT_EQ(base::format_duration(725), "12m05s");
  EXPECT_EQ(base::format_duration(4320), "1h12m");
  EXPECT_EQ(base::format_duration(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(
      base::format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
}

} // namespace
} // namespace deepspeed::report
