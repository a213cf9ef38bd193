// The calls of engine.h, one by one: values, counters, errors.
#include <stdexcept>

#include "deepspeed/engine/test_steps.h"

namespace deepspeed {
namespace {

std::string named(const RunPlan& plan) {
  return plan.dtype + ", stage " + std::to_string(plan.stage);
}

TEST(Calls, BackwardReturnsWhatWasDifferentiated) {
  for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
    on_ranks(1, [&](const auto& ranks) {
      const RunPlan plan{.accumulation = 4, .dtype = dtype};
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const at::Tensor loss = loss_of(*module, 0);
      const at::Tensor mean = engine.backward(loss);
      EXPECT_EQ(mean.item<double>(), loss.item<double>() / 4) << dtype;
      EXPECT_FALSE(mean.requires_grad());
    });
  }
}

TEST(Calls, BackwardRefusesWhatIsNoLoss) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {});
    const auto [x, y] = micro_batch(0);
    EXPECT_THROW(engine.backward(module->forward(x)), std::invalid_argument);
    EXPECT_THROW(engine.backward(at::ones({})), std::invalid_argument);
    // The engine is as before.
    engine.backward(loss_of(*module, 0));
    engine.step();
    EXPECT_EQ(engine.global_steps(), 1);
  });
}

// A loss whose gradient throws in the middle of the backward pass.
struct Bad : torch::autograd::Function<Bad> {
  static at::Tensor forward(
      torch::autograd::AutogradContext*,
      const at::Tensor& x) {
    return x.clone();
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext*,
      const torch::autograd::variable_list&) {
    throw std::runtime_error("bad");
  }
};

TEST(Calls, AFailedBackwardLeavesNothingBehind) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(1, [&](const auto& ranks) {
      RunPlan plan{.stage = stage, .bucket = 1};
      auto expected = std::make_shared<SmallModule>();
      Engine other = make_engine(expected, ranks, plan);
      train_step(other, *expected, 0);

      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      // `last` has its gradient, and is reduced, before `first` throws.
      const at::Tensor h =
          at::linear(at::tanh(Bad::apply(module->first.sum(1))), module->last);
      EXPECT_ANY_THROW(engine.backward(h.sum()));
      EXPECT_THROW(engine.step(), std::logic_error);
      train_step(engine, *module, 0);
      EXPECT_EQ(
          largest_difference(copies_of(*expected), copies_of(*module)), 0);
    });
  }
}

TEST(Calls, StepsNeedABackward) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.accumulation = 2});
    EXPECT_THROW(engine.step(), std::logic_error);
    engine.backward(loss_of(*module, 0));
    engine.step();
    // The second micro batch has not been seen.
    EXPECT_THROW(engine.step(), std::logic_error);
    engine.backward(loss_of(*module, 1));
    EXPECT_THROW(engine.backward(loss_of(*module, 2)), std::logic_error)
        << "its gradients would be added to sums over the ranks";
    engine.step();
    EXPECT_EQ(engine.global_steps(), 1);
    EXPECT_EQ(engine.micro_steps(), 2);
    EXPECT_THROW(engine.step(), std::logic_error);
  });
}

TEST(Calls, OffTheBoundaryNothingMoves) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage, .accumulation = 3};
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const auto before = copies_of(*module);
      for (int micro = 0; micro < 3; ++micro) {
        EXPECT_EQ(engine.is_gradient_accumulation_boundary(), micro == 2);
        EXPECT_EQ(largest_difference(before, copies_of(*module)), 0);
        EXPECT_EQ(engine.global_steps(), 0);
        EXPECT_FALSE(engine.was_step_applied());
        engine.backward(loss_of(*module, micro * 2 + ranks->rank()));
        engine.step();
        EXPECT_EQ(engine.micro_steps(), micro + 1);
      }
      EXPECT_GT(largest_difference(before, copies_of(*module)), 1e-4);
      EXPECT_EQ(engine.global_steps(), 1);
      EXPECT_EQ(engine.global_samples(), 2 * 3 * 4);
      EXPECT_EQ(engine.skipped_steps(), 0);
      EXPECT_TRUE(engine.was_step_applied());
      EXPECT_FALSE(engine.is_gradient_accumulation_boundary());
    });
  }
}

const char* kSgd = R"({"type": "SGD", "params": {"lr": 0.1}})";

// The gradients of one step as SGD with rate 0.1 applied them, against a loop
// without engine over the same micro batches: their sum times `factor`.
void expect_sum(
    const std::vector<at::Tensor>& before,
    const SmallModule& module,
    int64_t micro_batches,
    double factor,
    const std::string& what) {
  SmallModule plain;
  plain_backward(plain, 0, micro_batches);
  const auto after = copies_of(module);
  const auto parameters = plain.parameters();
  for (size_t i = 0; i < after.size(); ++i) {
    const at::Tensor expected = before[i] -
        0.1 * factor * static_cast<double>(micro_batches) *
            parameters[i].grad();
    EXPECT_LT((after[i] - expected).abs().max().item<double>(), 1e-6) << what;
  }
}

TEST(Calls, TheCallerMaySetTheBoundary) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      // Configured for one micro batch; three are made.
      RunPlan plan{.stage = stage, .bucket = 1, .optimizer = kSgd};
      plan.more = R"(, "gradient_clipping": 0)";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const auto before = copies_of(*module);
      for (int micro = 0; micro < 3; ++micro) {
        engine.set_gradient_accumulation_boundary(micro == 2);
        EXPECT_EQ(engine.is_gradient_accumulation_boundary(), micro == 2);
        engine.backward(loss_of(*module, micro * 2 + ranks->rank()));
        engine.step();
      }
      EXPECT_EQ(engine.global_steps(), 1);
      expect_sum(before, *module, 6, 0.5, named(plan));
    });
  }
}

TEST(Calls, WithoutManagedAccumulationEachStepUpdates) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage, .accumulation = 2, .optimizer = kSgd};
      plan.more = R"(, "gradient_clipping": 0,
          "managed_gradient_accumulation": false)";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const auto before = copies_of(*module);
      for (int micro = 0; micro < 3; ++micro) {
        const at::Tensor loss = loss_of(*module, micro * 2 + ranks->rank());
        EXPECT_EQ(
            engine.backward(loss).template item<float>(), loss.item<float>());
      }
      EXPECT_TRUE(engine.is_gradient_accumulation_boundary());
      engine.step();
      EXPECT_EQ(engine.global_steps(), 1);
      expect_sum(before, *module, 6, 0.5, named(plan));
    });
  }
}

TEST(Calls, NoSyncSumsLater) {
  for (const int stage : {0, 1}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage, .bucket = 1, .optimizer = kSgd};
      plan.more = R"(, "gradient_clipping": 0)";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const auto before = copies_of(*module);
      {
        const Engine::NoSync quiet = engine.no_sync();
        engine.backward(loss_of(*module, ranks->rank()));
        engine.backward(loss_of(*module, 2 + ranks->rank()));
        EXPECT_THROW(engine.step(), std::logic_error);
        EXPECT_THROW((void)engine.no_sync(), std::logic_error);
      }
      engine.backward(loss_of(*module, 4 + ranks->rank()));
      engine.step();
      expect_sum(before, *module, 6, 0.5, named(plan));
      // All backward passes inside: step() itself sums.
      const auto second = copies_of(*module);
      {
        const Engine::NoSync quiet = engine.no_sync();
        engine.backward(loss_of(*module, ranks->rank()));
      }
      engine.step();
      EXPECT_GT(largest_difference(second, copies_of(*module)), 1e-4);
      at::Tensor weights = module->first.detach().clone().view({-1});
      ranks->all_reduce(weights, comm::ReduceOp::max)->wait();
      EXPECT_TRUE(at::equal(weights, module->first.detach().view({-1})))
          << "ranks differ";
    });
  }
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.stage = 2});
    EXPECT_THROW((void)engine.no_sync(), std::logic_error);
  });
}

double norm_of(const std::vector<at::Tensor>& gradients) {
  double sum = 0;
  for (const at::Tensor& gradient : gradients) {
    sum += gradient.to(at::kDouble).square().sum().item<double>();
  }
  return std::sqrt(sum);
}

// The mean gradient over micro batches, each computed in `dtype` and added up
// in fp32.
std::vector<at::Tensor> mean_gradient(at::ScalarType dtype, int64_t count) {
  SmallModule module;
  module.to(dtype);
  std::vector<at::Tensor> sums;
  for (const at::Tensor& parameter : module.parameters()) {
    sums.push_back(at::zeros_like(parameter, at::kFloat));
  }
  for (int64_t i = 0; i < count; ++i) {
    module.zero_grad();
    loss_of(module, i).backward();
    const auto parameters = module.parameters();
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (parameters[p].grad().defined()) {
        sums[p] += parameters[p].grad().to(at::kFloat) / count;
      }
    }
  }
  return sums;
}

TEST(Calls, GradientNormIsUnscaledAndUnclipped) {
  const std::vector<std::tuple<std::string, at::ScalarType, double>> dtypes = {
      {"fp32", at::kFloat, 1e-6},
      {"bf16", at::kBFloat16, 5e-3},
      {"fp16", at::kHalf, 1e-3}};
  for (const auto& [dtype, type, bound] : dtypes) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        RunPlan plan{.stage = stage, .accumulation = 2, .dtype = dtype};
        plan.more = R"(, "gradient_clipping": 0.001)";
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        train_step(engine, *module, 0);
        const double expected = norm_of(mean_gradient(type, 4));
        EXPECT_GT(expected, 0.01);
        EXPECT_NEAR(engine.get_global_grad_norm() / expected, 1, bound)
            << named(plan);
      });
    }
  }
}

TEST(Calls, BatchSizesMayChange) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = stage};
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      EXPECT_EQ(engine.train_batch_size(), 8);
      EXPECT_EQ(engine.train_micro_batch_size_per_gpu(), 4);
      train_step(engine, *module, 0);
      EXPECT_EQ(
          comm::error_of([&] { engine.set_train_batch_size(12); }).substr(0, 3),
          "78 ");
      engine.set_train_batch_size(24);
      EXPECT_EQ(engine.gradient_accumulation_steps(), 3);
      train_step(engine, *module, 1);
      EXPECT_EQ(engine.global_steps(), 2);
      EXPECT_EQ(engine.global_samples(), 8 + 24);
      engine.set_train_micro_batch_size(2);
      EXPECT_EQ(engine.train_batch_size(), 12);
      EXPECT_EQ(engine.gradient_accumulation_steps(), 3);
    });
  }
}

// The rates of ten updates: what get_lr() says before each of them.
std::vector<double> rates(const std::string& scheduler, double lr) {
  SharedDoubles result(20);
  on_ranks(1, [&](const auto& ranks) {
    RunPlan plan;
    plan.optimizer =
        R"({"type": "Adam", "params": {"lr": )" + std::to_string(lr) + R"(}})";
    plan.more = ", \"scheduler\": " + scheduler;
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    for (int step = 0; step < 10; ++step) {
      result[step] = engine.get_lr().at(0);
      result[10 + step] = engine.get_mom().at(0).first;
      const auto before = copies_of(*module);
      train_step(engine, *module, step);
      EXPECT_EQ(
          largest_difference(before, copies_of(*module)) == 0,
          result[step] == 0)
          << "step " << step;
    }
  });
  return result.all();
}

void expect_rates(
    const std::vector<double>& expected,
    const std::string& scheduler,
    double lr) {
  const std::vector<double> actual = rates(scheduler, lr);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-4 * lr)
        << scheduler << ", step " << i;
  }
}

// Values of Python DeepSpeed 0.19.8. The first two updates of a warm-up run at
// its lowest rate.
TEST(Calls, RatesAreDeepSpeeds) {
  expect_rates(
      {0, 0, .4307, .6826, .8614, 1, 1, 1, 1, 1},
      R"({"type": "WarmupLR", "params": {"warmup_num_steps": 5}})",
      1);
  expect_rates(
      {.25, .25, .4, .55, .7, .85, 1, 1, 1, 1},
      R"({"type": "WarmupLR", "params": {"warmup_num_steps": 5,
          "warmup_min_lr": 0.25, "warmup_type": "linear"}})",
      1);
  expect_rates(
      {0, 0, .2, .4, .6, .8, 1, .8, .6, .4},
      R"({"type": "WarmupDecayLR", "params": {"warmup_num_steps": 5,
          "total_num_steps": 10, "warmup_max_lr": 1,
          "warmup_type": "linear"}})",
      1);
  expect_rates(
      {0, 0, 2e-4, 4e-4, 6e-4, 8e-4, 9.045e-4, 6.545e-4, 3.456e-4, 9.558e-5},
      R"({"type": "WarmupCosineLR", "params": {"warmup_num_steps": 5,
          "total_num_steps": 10, "warmup_type": "linear"}})",
      1e-3);
}

TEST(Calls, OneCycleMovesRateAndMomentum) {
  const std::vector<double> actual = rates(
      R"({"type": "OneCycle", "params": {"cycle_min_lr": 0.1,
          "cycle_max_lr": 0.5, "cycle_first_step_size": 4,
          "cycle_min_mom": 0.8, "cycle_max_mom": 0.9}})",
      1);
  // Up in four steps and down in four; the momentum goes the other way.
  const std::vector<double> part = {0, .25, .5, .75, 1, .75, .5, .25};
  for (int step = 0; step < 8; ++step) {
    EXPECT_NEAR(actual[step], 0.1 + 0.4 * part[step], 1e-9) << step;
    // DeepSpeed starts with the lowest momentum.
    const double momentum = step == 0 ? 0.8 : 0.9 - 0.1 * part[step];
    EXPECT_NEAR(actual[10 + step], momentum, 1e-9) << step;
  }
  const std::vector<double> range = rates(
      R"({"type": "LRRangeTest", "params": {"lr_range_test_min_lr": 0.01,
          "lr_range_test_step_size": 5}})",
      1);
  for (int step = 0; step < 10; ++step) {
    EXPECT_NEAR(range[step], 0.01 * (1 + step / 5.0), 1e-9) << step;
  }
}

TEST(Calls, ARateOfTheProgramsOwn) {
  on_ranks(1, [](const auto& ranks) {
    InitializeOptions options;
    options.learning_rate = [](int64_t steps) { return steps == 1 ? 0 : 0.5; };
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.optimizer = kSgd}, options);
    EXPECT_EQ(engine.get_lr(), std::vector<double>{0.5});
    train_step(engine, *module, 0);
    EXPECT_EQ(engine.get_lr(), std::vector<double>{0});
    const auto before = copies_of(*module);
    train_step(engine, *module, 1);
    EXPECT_EQ(largest_difference(before, copies_of(*module)), 0);
    EXPECT_EQ(engine.get_lr(), std::vector<double>{0.5});
  });
}

} // namespace
} // namespace deepspeed
