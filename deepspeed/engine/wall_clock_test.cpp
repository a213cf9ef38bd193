// The lines of wall_clock_breakdown against those of DeepSpeed 0.19.8.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "deepspeed/engine/test_steps.h"

namespace deepspeed {
namespace {

using Names = std::vector<std::string>;

struct Line {
  Names names;
  std::map<std::string, double> milliseconds;
};

// "... time (ms) | fwd: 1.23 | bwd: 4.56" lines of a log.
std::vector<Line> lines_of(const std::string& log) {
  std::vector<Line> lines;
  std::istringstream stream(log);
  for (std::string text; std::getline(stream, text);) {
    const size_t begin = text.find("time (ms) | ");
    if (begin == std::string::npos) {
      continue;
    }
    std::istringstream words(text.substr(begin + 12));
    Line line;
    for (std::string name, bar; words >> name; words >> bar) {
      name.pop_back(); // the colon
      line.names.push_back(name);
      words >> line.milliseconds[name];
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

const Names kMicro = {
    "fwd_microstep",
    "bwd_microstep",
    "bwd_inner_microstep",
    "bwd_allreduce_microstep",
    "step_microstep"};
const Names kStep = {"fwd", "bwd", "bwd_inner", "bwd_allreduce", "step"};
const Names kOptimizer = {
    "optimizer_allgather",
    "optimizer_gradients",
    "optimizer_step"};

// What one step says, to `check`, in a process of its own.
void with_step(
    const RunPlan& plan,
    const std::function<void(std::vector<Line>)>& check) {
  on_ranks(1, [&](const auto& ranks) {
    RunPlan clocked = plan;
    clocked.more = R"(, "wall_clock_breakdown": true)";
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, clocked);
    testing::internal::CaptureStderr();
    train_step(engine, *module, 0);
    check(lines_of(testing::internal::GetCapturedStderr()));
  });
}

TEST(WallClock, LinesAreDeepSpeeds) {
  with_step({.stage = 1, .accumulation = 2}, [](const auto& lines) {
    ASSERT_EQ(lines.size(), 4u);
    EXPECT_EQ(lines[0].names, kMicro);
    EXPECT_EQ(lines[1].names, kOptimizer);
    EXPECT_EQ(lines[2].names, kMicro);
    EXPECT_EQ(lines[3].names, kStep);
  });
}

TEST(WallClock, OptimizerLineIsOfZero) {
  with_step({.stage = 0}, [](const auto& lines) {
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[0].names, kMicro);
    EXPECT_EQ(lines[1].names, kStep);
  });
}

TEST(WallClock, PartsFitIntoTheWhole) {
  constexpr double kRounding = 0.03; // of a few values with two decimals
  with_step({.stage = 1, .accumulation = 2}, [](std::vector<Line> lines) {
    ASSERT_EQ(lines.size(), 4u);
    auto& first = lines[0].milliseconds;
    auto& optimizer = lines[1].milliseconds;
    auto& second = lines[2].milliseconds;
    auto& step = lines[3].milliseconds;
    for (const std::string& name : kStep) {
      EXPECT_NEAR(
          step[name],
          first[name + "_microstep"] + second[name + "_microstep"],
          kRounding)
          << name;
    }
    EXPECT_GT(step["bwd"], 0);
    EXPECT_NEAR(
        step["bwd"], step["bwd_inner"] + step["bwd_allreduce"], kRounding);
    EXPECT_LE(
        optimizer["optimizer_allgather"] + optimizer["optimizer_gradients"] +
            optimizer["optimizer_step"],
        step["step"] + kRounding);
  });
}

} // namespace
} // namespace deepspeed
