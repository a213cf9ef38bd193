// A module on a GPU with the optimizer in host memory is the same run as on the
// CPU.
#include <ATen/Context.h>
#include <filesystem>

#include "deepspeed/base/temporary_folder.h"
#include "deepspeed/engine/test_engine.h"

namespace deepspeed {
namespace {

class EngineOnGpu : public testing::Test {
 protected:
  // In a process of its own: a process that has touched the GPU cannot fork.
  void SetUp() override {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::_exit(load_cuda() && at::hasCUDA() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    // CI has no GPU: these run by hand on a machine with one.
    if (status != 0) {
      GTEST_SKIP() << "no GPU that libtorch can use";
    }
  }

  static RunPlan plan(int ranks, int stage, const std::string& dtype) {
    RunPlan plan{.ranks = ranks, .stage = stage, .dtype = dtype};
    plan.device = "cuda:0";
    plan.offload = true;
    return plan;
  }
};

TEST_F(EngineOnGpu, IsTheRunOfTheCpu) {
  for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
    const std::vector<double> cpu = train({.ranks = 2, .dtype = dtype});
    for (const int stage : {1, 2}) {
      const std::vector<double> gpu = train(plan(2, stage, dtype));
      EXPECT_LE(loss_difference(cpu, gpu, 20), dtype == "fp32" ? 1e-4 : 6e-2)
          << dtype << " stage " << stage;
      EXPECT_NE(gpu[0], gpu[19]);
    }
  }
}

TEST_F(EngineOnGpu, OneRankUsesPinnedMemory) {
  const std::vector<double> cpu = train({.ranks = 1});
  const std::vector<double> gpu = train(plan(1, 1, "fp32"));
  EXPECT_LE(loss_difference(cpu, gpu, 20), 1e-4);
}

TEST_F(EngineOnGpu, CheckpointsMoveBetweenDevices) {
  const base::TemporaryFolder folder;
  RunPlan first = plan(2, 2, "bf16");
  first.save_to = folder.path();
  const std::vector<double> saved = train(first);
  RunPlan second{.ranks = 1, .stage = 1, .steps = 0, .dtype = "bf16"};
  second.load_from = folder.path();
  const std::vector<double> loaded = train(second);
  EXPECT_EQ(std::vector<double>(saved.begin() + 40, saved.end()), loaded);
}

} // namespace
} // namespace deepspeed
