// fp16, bf16 and fp32: loss scaling, skipped steps, what is kept in fp32.
#include <cmath>
#include <limits>

#include "deepspeed/engine/test_steps.h"

namespace deepspeed {
namespace {

const char* kSgd = R"({"type": "SGD", "params": {"lr": 0.1}})";

// A step whose gradients are `value` on rank 0 for the parameter `tied`; the
// ranks' other gradients are those of the micro batch.
void step_with(Engine& engine, SmallModule& module, double value) {
  at::Tensor loss = loss_of(module, engine.ranks().rank());
  if (engine.ranks().rank() == 0) {
    loss = loss + (module.tied.to(at::kFloat) * value).sum();
  }
  engine.backward(loss);
  engine.step();
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Precision, AnOverflowOnOneRankSkipsTheStepOnAll) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage};
      plan.more = R"(, "scheduler": {"type": "WarmupLR", "params": {
          "warmup_num_steps": 10, "warmup_min_lr": 0.001}},
          "fp16": {"enabled": true, "initial_scale_power": 10,
                   "hysteresis": 2, "loss_scale_window": 3})";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      for (int i = 0; i < 3; ++i) {
        step_with(engine, *module, 0);
      }
      const auto before = engine.fp32_parameters()[3].second.clone();
      const auto lr = engine.get_lr();
      EXPECT_EQ(engine.loss_scale(), 1024);
      // The first overflow uses up the hysteresis, the second halves.
      for (const double scale : {1024., 512.}) {
        step_with(engine, *module, kInfinity);
        EXPECT_FALSE(engine.was_step_applied());
        EXPECT_FALSE(std::isfinite(engine.get_global_grad_norm()));
        EXPECT_EQ(engine.loss_scale(), scale);
        EXPECT_EQ(engine.get_lr(), lr);
        EXPECT_TRUE(at::equal(engine.fp32_parameters()[3].second, before));
      }
      EXPECT_EQ(engine.skipped_steps(), 2);
      EXPECT_EQ(engine.global_steps(), 5);
      EXPECT_EQ(engine.global_samples(), 40);
      // Growth comes after window + 1 clean steps.
      for (int clean = 1; clean <= 4; ++clean) {
        EXPECT_EQ(engine.loss_scale(), 512) << clean;
        step_with(engine, *module, 0);
        EXPECT_TRUE(engine.was_step_applied());
      }
      EXPECT_EQ(engine.loss_scale(), 1024);
      EXPECT_GT(engine.get_lr()[0], lr[0]);
    });
  }
}

// DeepSpeed 0.19.8 halves the update of a step at which the scale grows.
TEST(Precision, TheStepAtWhichTheScaleGrowsIsWhole) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      const auto weights = [&](const std::string& scale) {
        RunPlan plan{.stage = stage, .optimizer = kSgd};
        plan.more = R"(, "fp16": {"enabled": true, )" + scale + "}";
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        std::vector<double> norms;
        for (int step = 0; step < 8; ++step) {
          step_with(engine, *module, 0);
          norms.push_back(engine.get_global_grad_norm());
        }
        return std::pair(copies_of(*module), norms);
      };
      // Powers of two change no bits of the gradients.
      const auto grown =
          weights(R"("initial_scale_power": 8, "loss_scale_window": 2)");
      const auto fixed = weights(R"("loss_scale": 256)");
      EXPECT_LT(largest_difference(grown.first, fixed.first), 2e-4);
      for (int step = 0; step < 8; ++step) {
        EXPECT_NEAR(grown.second[step] / fixed.second[step], 1, 2e-3) << step;
      }
    });
  }
}

TEST(Precision, AtTheSmallestScaleTheRunEnds) {
  on_ranks(2, [](const auto& ranks) {
    RunPlan plan{.stage = 1};
    plan.more = R"(, "fp16": {"enabled": true, "initial_scale_power": 1,
        "hysteresis": 1, "min_loss_scale": 1})";
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    const auto before = copies_of(*module);
    step_with(engine, *module, kInfinity);
    EXPECT_EQ(engine.loss_scale(), 1);
    EXPECT_THAT(
        comm::error_of([&] { step_with(engine, *module, kInfinity); }),
        testing::StartsWith("70 gradients are not finite"));
    EXPECT_EQ(largest_difference(before, copies_of(*module)), 0);
    EXPECT_EQ(engine.global_steps() - engine.skipped_steps(), 0);
  });
}

TEST(Precision, ABadGradientWithoutLossScaleIsSkippedAndTenEndTheRun) {
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        auto module = std::make_shared<SmallModule>();
        Engine engine =
            make_engine(module, ranks, {.stage = stage, .dtype = dtype});
        step_with(engine, *module, 0);
        const auto before = copies_of(*module);
        const double nan = std::nan("");
        for (int i = 1; i <= 9; ++i) {
          testing::internal::CaptureStderr();
          step_with(engine, *module, nan);
          const std::string said = testing::internal::GetCapturedStderr();
          if (ranks->rank() == 0) {
            EXPECT_THAT(
                said,
                testing::HasSubstr(
                    "the gradient of step " + std::to_string(i + 1) +
                    " is not finite (parameter tied)"));
          }
          EXPECT_EQ(engine.skipped_steps(), i);
        }
        EXPECT_THAT(
            comm::error_of([&] { step_with(engine, *module, nan); }),
            testing::StartsWith("70 the gradient was not finite for 10"));
        EXPECT_EQ(largest_difference(before, copies_of(*module)), 0);
        EXPECT_EQ(engine.global_steps(), 11);
        EXPECT_EQ(engine.skipped_steps(), 10);
      });
    }
  }
}

TEST(Precision, AGoodStepForgivesTheBadOnes) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.dtype = "bf16"});
    for (int i = 0; i < 27; ++i) {
      step_with(engine, *module, i % 9 == 8 ? 0 : kInfinity);
    }
    EXPECT_EQ(engine.skipped_steps(), 24);
  });
}

TEST(Precision, TheCheckOfBf16CanBeSwitchedOff) {
  on_ranks(2, [](const auto& ranks) {
    RunPlan plan;
    plan.more = R"(, "bf16": {"enabled": true, "check_grad_overflow": false})";
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    step_with(engine, *module, std::nan(""));
    EXPECT_TRUE(engine.was_step_applied());
    EXPECT_TRUE(module->tied.isnan().any().item<bool>());
  });
}

TEST(Precision, MasterWeightsKeepTheFp32Initialisation) {
  for (const std::string dtype : {"bf16", "fp16"}) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        const SmallModule initial;
        auto module = std::make_shared<SmallModule>();
        Engine engine =
            make_engine(module, ranks, {.stage = stage, .dtype = dtype});
        const auto masters = engine.fp32_parameters();
        const auto expected = initial.parameters();
        for (size_t i = 0; i < expected.size(); ++i) {
          EXPECT_TRUE(at::equal(masters[i].second, expected[i]));
          EXPECT_TRUE(at::equal(
              module->parameters()[i],
              expected[i].to(dtype == "bf16" ? at::kBFloat16 : at::kHalf)));
        }
      });
    }
  }
}

// bf16 has 8 bits: 256 + 1 is 256 there.
TEST(Precision, GradientsAccumulateInFp32) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage, .accumulation = 2, .dtype = "bf16"};
      plan.optimizer = R"({"type": "SGD", "params": {"lr": 1}})";
      plan.more = R"(, "gradient_clipping": 0)";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const at::Tensor before = engine.fp32_parameters()[0].second.clone();
      for (const double gradient : {512., 2.}) {
        engine.backward((module->first * gradient).sum().to(at::kFloat));
        engine.step();
      }
      const at::Tensor moved = before - engine.fp32_parameters()[0].second;
      EXPECT_TRUE(at::allclose(moved, at::full_like(moved, 257), 0, 1e-3));
    });
  }
}

TEST(Precision, HowGradientsTravel) {
  // name -> what the mean gradient is multiplied by
  const std::vector<std::pair<std::string, double>> ways = {
      {R"("communication_data_type": "fp32")", 1},
      {R"("prescale_gradients": true)", 1},
      {R"("gradient_predivide_factor": 3)", 1},
      {R"("gradient_allreduce_op": "sum")", 2},
      {R"("gradient_allreduce_op": "sum", "gradient_predivide_factor": 4)", 2},
      {R"("communication_data_type": "bf16")", 1}};
  for (const auto& [way, factor] : ways) {
    for (const int stage : {0, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        RunPlan plan{.stage = stage, .optimizer = kSgd};
        plan.more = R"(, "gradient_clipping": 0, )" + way;
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        const auto before = copies_of(*module);
        train_step(engine, *module, 0);
        SmallModule plain;
        plain_backward(plain, 0, 2);
        const bool rounded = way.find("bf16") != std::string::npos;
        double largest = 0;
        for (size_t i = 0; i < before.size(); ++i) {
          const at::Tensor expected =
              before[i] - 0.1 * factor * plain.parameters()[i].grad();
          const at::Tensor difference =
              (copies_of(*module)[i] - expected).abs().max();
          largest = std::max(largest, difference.template item<double>());
        }
        EXPECT_LT(largest, rounded ? 1e-3 : 1e-6) << way;
        EXPECT_EQ(rounded, largest > 1e-6) << way;
      });
    }
  }
}

} // namespace
} // namespace deepspeed
