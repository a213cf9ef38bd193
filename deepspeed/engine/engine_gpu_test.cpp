// A module on a GPU with the optimizer in host memory is the same run as on the
// CPU, and the same bits whether gradients are summed there or over NCCL.
#include <filesystem>

#include "deepspeed/comm/transport.h"
#include "deepspeed/engine/test_engine.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed {
namespace {

class EngineOnGpu : public testing::Test {
 protected:
  // CI has no GPU: these run by hand on a machine with one.
  void SetUp() override {
    if (comm::gpu_count() == 0) {
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
    const Trace cpu = train({.ranks = 2, .dtype = dtype});
    for (const int stage : {1, 2}) {
      const Trace gpu = train(plan(2, stage, dtype));
      EXPECT_LE(
          loss_difference(cpu.losses, gpu.losses),
          dtype == "fp32" ? 1e-4 : 6e-2)
          << dtype << " stage " << stage;
      EXPECT_NE(gpu.losses.front(), gpu.losses.back());
    }
  }
}

TEST_F(EngineOnGpu, OneRankUsesPinnedMemory) {
  const Trace cpu = train({.ranks = 1});
  const Trace gpu = train(plan(1, 1, "fp32"));
  EXPECT_LE(loss_difference(cpu.losses, gpu.losses), 1e-4);
}

TEST_F(EngineOnGpu, CheckpointsMoveBetweenDevices) {
  const file::TemporaryFolder folder;
  RunPlan first = plan(2, 2, "bf16");
  first.save_to = folder.path();
  const Trace saved = train(first);
  RunPlan second{.ranks = 1, .stage = 1, .steps = 0, .dtype = "bf16"};
  second.load_from = folder.path();
  EXPECT_EQ(saved.weights, train(second).weights);
}

TEST_F(EngineOnGpu, NcclGivesTheBitsOfHostMemory) {
  const int most = std::min(comm::gpu_count(), 2);
  for (int ranks = 1; ranks <= most; ++ranks) {
    for (const std::string dtype : {"fp32", "bf16"}) {
      for (const int stage : {1, 2}) {
        RunPlan host = plan(ranks, stage, dtype);
        host.device = "cuda";
        RunPlan nccl = host;
        nccl.transport = "nccl";
        EXPECT_EQ(train(host), train(nccl))
            << ranks << " ranks, " << dtype << " stage " << stage;
      }
    }
  }
  // One rank was checked; NCCL refuses two ranks on one GPU.
  if (most < 2) {
    GTEST_SKIP() << "two ranks need two GPUs, and there is one";
  }
}

TEST_F(EngineOnGpu, CheckpointsWithNcclAreWhole) {
  const file::TemporaryFolder folder;
  RunPlan first = plan(std::min(comm::gpu_count(), 2), 2, "bf16");
  first.device = "cuda";
  first.transport = "nccl";
  first.save_to = folder.path();
  const Trace saved = train(first);
  RunPlan second{.ranks = 1, .stage = 1, .steps = 0, .dtype = "bf16"};
  second.load_from = folder.path();
  EXPECT_EQ(saved.weights, train(second).weights);
}

// Without a GPU, too.
TEST(Nccl, NeedsAModuleOnAGpu) {
  comm::Ranks ranks(1, [](const comm::RankInfo&) {
    InitializeOptions options;
    options.ranks = std::make_shared<comm::ProcessGroup>(
        0, 1, comm::make_single_transport(), [](at::Device, comm::Transport&) {
          return comm::make_single_transport();
        });
    const config::Config config =
        config::parse_config(config_text({.stage = 1}), "test", {});
    EXPECT_THAT(
        comm::error_of([&] {
          initialize(std::make_shared<SmallModule>(), config, options);
        }),
        testing::StartsWith("78 NCCL is asked for, but the module is on the "));
    options.dist_backend = "nccl";
    EXPECT_THROW(
        initialize(std::make_shared<SmallModule>(), config, options),
        std::invalid_argument);
  });
  ranks.expect_success();
}

// The configuration that asks a program of DeepSpeed for NCCL, without a GPU.
TEST(Nccl, DistBackendIsRefusedWithoutAGpu) {
  // Where there is a GPU, NCCL is not refused. CI has none.
  if (comm::gpu_count() > 0) {
    GTEST_SKIP() << "there is a GPU";
  }
  comm::Ranks ranks(1, [](const comm::RankInfo&) {
    InitializeOptions options;
    options.dist_backend = "nccl";
    const config::Config config =
        config::parse_config(config_text({.stage = 1}), "test", {});
    EXPECT_THAT(
        comm::error_of([&] {
          initialize(std::make_shared<SmallModule>(), config, options);
        }),
        testing::StartsWith("78 NCCL is asked for, but libtorch"));
  });
  ranks.expect_success();
}

} // namespace
} // namespace deepspeed
