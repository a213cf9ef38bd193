// Every stage, number of ranks, accumulation and bucket size is the same run.
#include <filesystem>
#include <optional>

#include "deepspeed/engine/test_engine.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed {
namespace {

// How far the losses of another number of ranks may be from one rank's, which
// differs in the order of sums only.
double bound_of(const std::string& dtype) {
  return dtype == "fp32" ? 1e-5 : dtype == "fp16" ? 2e-2 : 6e-2;
}

double mean_of(const std::vector<double>& values, int begin, int end) {
  double sum = 0;
  for (int i = begin; i < end; ++i) {
    sum += values[i];
  }
  return sum / (end - begin);
}

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, RanksTimesAccumulationIsOneRank) {
  const std::string dtype = GetParam();
  for (const int accumulation : {1, 2}) {
    for (const int ranks : {1, 2, 3, 4}) {
      RunPlan one{.accumulation = accumulation * ranks, .dtype = dtype};
      const Trace expected = train(one);
      std::optional<Trace> first;
      for (const int stage : {0, 1, 2}) {
        for (const int64_t bucket : {1, 40, 500'000'000}) {
          RunPlan plan{ranks, stage, accumulation};
          plan.bucket = bucket;
          plan.dtype = dtype;
          const Trace actual = train(plan);
          const std::string what = dtype + ", " + std::to_string(ranks) +
              " ranks, stage " + std::to_string(stage) + ", accumulation " +
              std::to_string(accumulation) + ", bucket " +
              std::to_string(bucket);
          EXPECT_LE(
              loss_difference(expected.losses, actual.losses), bound_of(dtype))
              << what;
          if (!first) {
            first = actual;
          }
          // Bit for bit: losses, norms and weights.
          EXPECT_EQ(*first, actual) << what;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Engine,
    Parity,
    testing::Values("fp32", "bf16", "fp16"),
    [](const auto& info) { return info.param; });

TEST(Engine, LearnsAndClips) {
  const Trace trace = train({.ranks = 2, .stage = 1});
  EXPECT_LT(mean_of(trace.losses, 15, 20), mean_of(trace.losses, 0, 5));
  // The same gradients before clipping, other weights after it.
  RunPlan plan{.ranks = 2, .stage = 1, .steps = 2};
  plan.more = R"(, "gradient_clipping": 0.125)";
  const Trace clipped = train(plan);
  plan.more = R"(, "gradient_clipping": 0)";
  const Trace free = train(plan);
  EXPECT_EQ(clipped.norms[0], free.norms[0]);
  EXPECT_NE(clipped.weights, free.weights);
}

TEST(Engine, OptimizersAgreeOverStages) {
  for (const std::string optimizer :
       {R"({"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9}})",
        R"({"type": "Lamb", "params": {"lr": 0.01, "weight_decay": 0.01}})",
        R"({"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1}})"}) {
    std::optional<Trace> first;
    for (const int stage : {0, 1, 2}) {
      RunPlan plan{.ranks = 3, .stage = stage};
      plan.optimizer = optimizer;
      const Trace actual = train(plan);
      if (!first) {
        first = actual;
        EXPECT_LT(mean_of(actual.losses, 15, 20), mean_of(actual.losses, 0, 5))
            << optimizer;
      }
      EXPECT_EQ(*first, actual) << optimizer << " stage " << stage;
    }
  }
}

TEST(Engine, ReshardsInTheMiddleOfARun) {
  const file::TemporaryFolder folder;
  const auto path = [&](const std::string& name) {
    return folder.path() + "/" + name;
  };
  struct Part {
    int ranks;
    int stage;
    int accumulation;
  };
  // 12 micro batches a step, whoever makes them.
  const Part parts[] = {{4, 2, 3}, {2, 1, 6}, {3, 1, 4}, {1, 0, 12}};
  std::vector<double> losses;
  std::string from;
  for (int i = 0; i < 4; ++i) {
    RunPlan plan{parts[i].ranks, parts[i].stage, parts[i].accumulation, 5};
    plan.first_step = 5 * i;
    plan.load_from = from;
    plan.save_to = from = path("part" + std::to_string(i));
    const Trace trace = train(plan);
    losses.insert(losses.end(), trace.losses.begin(), trace.losses.end());
  }
  const Trace whole = train({.ranks = 1, .accumulation = 12});
  EXPECT_LE(loss_difference(whole.losses, losses), 1e-5);
}

TEST(Engine, ResumesBitForBit) {
  for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
    for (const int stage : {0, 1, 2}) {
      const file::TemporaryFolder folder;
      RunPlan plan{.ranks = 2, .stage = stage, .steps = 10, .dtype = dtype};
      plan.more =
          R"(, "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 8}})";
      const Trace whole = train(plan);
      plan.steps = 5;
      plan.save_to = folder.path();
      train(plan);
      plan.load_from = plan.save_to;
      plan.save_to = "";
      plan.first_step = 5;
      const Trace rest = train(plan);
      for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(whole.losses[5 + i], rest.losses[i])
            << dtype << " stage " << stage;
        EXPECT_EQ(whole.norms[5 + i], rest.norms[i])
            << dtype << " stage " << stage;
      }
      EXPECT_EQ(whole.weights, rest.weights) << dtype << " stage " << stage;
    }
  }
}

} // namespace
} // namespace deepspeed
