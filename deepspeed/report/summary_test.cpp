// Tables and the end of a run as text.
#include "deepspeed/report/summary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "deepspeed/report/phase_clock.h"

namespace deepspeed::report {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(Table, AlignsValues) {
  EXPECT_EQ(
      table({{"Model", "RoBERTa"}, {"Stop", "Ctrl-C"}}),
      "  Model  RoBERTa\n  Stop   Ctrl-C\n");
  EXPECT_EQ(table({{"é", "1"}, {"ab", "2"}}), "  é   1\n  ab  2\n");
  EXPECT_EQ(table({}), "");
}

TEST(Sparkline, SpansItsOwnRange) {
  EXPECT_EQ(sparkline({0, 1, 2, 3, 4, 5, 6, 7}, 8), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline({5, 5}, 8), "▁▁");
  EXPECT_EQ(sparkline({8, kNaN, 1}, 8), "█ ▁");
  EXPECT_EQ(sparkline({}, 8), "");
  // Eight values in four parts: the means 1, 5, 9, 13.
  EXPECT_EQ(sparkline({0, 2, 4, 6, 8, 10, 12, 14}, 4), "▁▃▆█");
}

TEST(EndSummary, ShowsWhatIsKnown) {
  EndSummary summary;
  summary.title = "Finished after 10,000 steps in 1h12m";
  summary.loss = 2;
  summary.losses = {3, 2};
  summary.phases = {{"compute", 90}, {"data", 10}};
  summary.rows = {{"Report", "x/report.html"}};
  summary.next_commands = {"fill_mask x"};
  EXPECT_EQ(
      end_summary(summary),
      "Finished after 10,000 steps in 1h12m\n"
      "  Loss        2.0000  (perplexity 7.389)\n"
      "  Loss curve  █▁\n"
      "  Time        compute 90.0% (1m30s), data 10.0% (10s)\n"
      "  Report      x/report.html\n"
      "Next:\n"
      "  fill_mask x\n");
}

TEST(PhaseClock, AddsUpPhases) {
  PhaseClock clock;
  clock.enter("compute");
  clock.enter("data");
  clock.enter("compute");
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin <
         std::chrono::milliseconds(20)) {
  }
  clock.stop();
  const double compute = clock.phases()[0].second;
  clock.stop(); // nothing is on
  ASSERT_EQ(clock.phases().size(), 2u);
  EXPECT_EQ(clock.phases()[0].first, "compute");
  EXPECT_GE(compute, 0.02);
  EXPECT_EQ(clock.phases()[0].second, compute);
  EXPECT_LT(clock.phases()[1].second, compute);
}

} // namespace
} // namespace deepspeed::report
