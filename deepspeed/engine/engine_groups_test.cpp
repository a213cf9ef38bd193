// Param groups, unusual parameters, and optimizers against torch's.
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include "deepspeed/engine/test_steps.h"

namespace deepspeed {
namespace {

using testing::HasSubstr;

using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(
    std::vector<at::Tensor>)>;

template <typename Optimizer, typename Options>
MakeOptimizer maker(Options options) {
  return [options](std::vector<at::Tensor> parameters) {
    return std::make_unique<Optimizer>(std::move(parameters), options);
  };
}

TEST(Optimizers, EqualTorchs) {
  using namespace torch::optim;
  const std::vector<std::pair<std::string, MakeOptimizer>> cases = {
      {R"({"type": "Adam", "params": {"lr": 0.01, "adam_w_mode": false,
          "weight_decay": 0.1, "betas": [0.8, 0.9], "eps": 1e-6}})",
       maker<Adam>(
           AdamOptions(0.01).weight_decay(0.1).betas({0.8, 0.9}).eps(1e-6))},
      {R"({"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1}})",
       maker<AdamW>(AdamWOptions(0.01).weight_decay(0.1))},
      {R"({"type": "Adam", "params": {"lr": 0.01, "torch_adam": true}})",
       maker<AdamW>(AdamWOptions(0.01).weight_decay(0.01))},
      {R"({"type": "SGD", "params": {"lr": 0.05, "weight_decay": 0.1}})",
       maker<SGD>(SGDOptions(0.05).weight_decay(0.1))},
      {R"({"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9,
          "dampening": 0.5}})",
       maker<SGD>(SGDOptions(0.05).momentum(0.9).dampening(0.5))},
      {R"({"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9,
          "nesterov": true, "weight_decay": 0.01}})",
       maker<SGD>(
           SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01))}};
  for (const auto& [text, make] : cases) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        RunPlan plan{.stage = stage, .accumulation = 2, .optimizer = text};
        plan.more = R"(, "gradient_clipping": 0)";
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        SmallModule plain;
        const auto optimizer = make(plain.parameters());
        for (int step = 0; step < 10; ++step) {
          train_step(engine, *module, step);
          plain_backward(plain, step * 4, 4);
          optimizer->step();
        }
        EXPECT_LT(
            largest_difference(copies_of(*module), copies_of(plain)), 5e-6)
            << text << ", stage " << stage;
      });
    }
  }
}

// Lamb (You et al., 2020, algorithm 2), parameter by parameter in fp64.
void plain_lamb(
    SmallModule& module,
    std::vector<std::pair<at::Tensor, at::Tensor>>& moments,
    int step) {
  const at::NoGradGuard no_grad;
  const auto parameters = module.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor w = parameters[i].to(at::kDouble);
    const at::Tensor g = parameters[i].grad().to(at::kDouble);
    if (moments.size() <= i) {
      moments.emplace_back(at::zeros_like(g), at::zeros_like(g));
    }
    auto& [m, v] = moments[i];
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const at::Tensor update = m / (v.sqrt() + 1e-8) + 0.01 * w;
    const double norms[2] = {
        w.norm().item<double>(), update.norm().item<double>()};
    const double ratio = norms[0] == 0 || norms[1] == 0
        ? 1
        : std::clamp(norms[0] / norms[1], 0.01, 10.0);
    const double rate =
        0.01 * std::sqrt(1 - std::pow(0.999, step)) / (1 - std::pow(0.9, step));
    parameters[i].copy_(w - rate * ratio * update);
  }
}

TEST(Optimizers, LambEqualsAPlainOne) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(3, [&](const auto& ranks) {
      RunPlan plan{.stage = stage};
      plan.optimizer =
          R"({"type": "Lamb", "params": {"lr": 0.01, "weight_decay": 0.01}})";
      plan.more = R"(, "gradient_clipping": 0)";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      SmallModule plain;
      std::vector<std::pair<at::Tensor, at::Tensor>> moments;
      for (int step = 0; step < 10; ++step) {
        train_step(engine, *module, step);
        plain_backward(plain, step * 3, 3);
        plain_lamb(plain, moments, step + 1);
      }
      EXPECT_LT(largest_difference(copies_of(*module), copies_of(plain)), 1e-5)
          << "stage " << stage;
    });
  }
}

TEST(Groups, HaveSettingsOfTheirOwn) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      auto module = std::make_shared<SmallModule>();
      InitializeOptions options;
      options.param_groups = {
          {{module->tied, module->first}, 0.02, 0.0},
          {{}, 7.0, {}}, // goes
          {{module->shift, module->last, module->unused}, {}, 0.3}};
      RunPlan plan{.stage = stage, .bucket = 40};
      plan.optimizer =
          R"({"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1}})";
      plan.more = R"(, "gradient_clipping": 0)";
      Engine engine = make_engine(module, ranks, plan, options);
      EXPECT_EQ(engine.get_lr(), (std::vector<double>{0.02, 0.01}));
      SmallModule plain;
      using torch::optim::AdamWOptions;
      torch::optim::AdamW a(
          {plain.tied, plain.first}, AdamWOptions(0.02).weight_decay(0));
      torch::optim::AdamW b(
          {plain.shift, plain.last, plain.unused},
          AdamWOptions(0.01).weight_decay(0.3));
      for (int step = 0; step < 5; ++step) {
        train_step(engine, *module, step);
        plain_backward(plain, step * 2, 2);
        a.step();
        b.step();
      }
      EXPECT_LT(largest_difference(copies_of(*module), copies_of(plain)), 2e-6);
    });
  }
}

TEST(Groups, WhatDoesNotBelongIsRefused) {
  on_ranks(1, [](const auto& ranks) {
    const auto error_with = [&](const std::vector<ParamGroup>& groups,
                                const std::shared_ptr<SmallModule>& module) {
      InitializeOptions options;
      options.param_groups = groups;
      return comm::error_of([&] { make_engine(module, ranks, {}, options); });
    };
    auto module = std::make_shared<SmallModule>();
    EXPECT_EQ(
        error_with(
            {{{module->tied}, {}, {}}, {{module->tied}, {}, {}}}, module),
        "78 parameter tied is in two param groups");
    EXPECT_EQ(
        error_with({{{module->tied, module->tied}, {}, {}}}, module),
        "78 parameter tied is in two param groups");
    EXPECT_EQ(
        error_with({{{at::zeros({2})}, {}, {}}}, module),
        "78 a param group holds a tensor that is no parameter of the module");
    for (const at::Tensor& parameter : module->parameters()) {
      parameter.requires_grad_(false);
    }
    EXPECT_EQ(
        error_with({}, module),
        "78 the module has no parameter that requires a gradient");
  });
}

// One parameter of each unusual kind beside an ordinary one.
struct OddModule : SmallModule {
  OddModule() {
    const at::NoGradGuard no_grad;
    transposed = register_parameter(
        "transposed", at::arange(15, at::kFloat).view({3, 5}).t().mul(0.01));
    empty = register_parameter("empty", at::zeros({0, 4}));
    frozen = register_parameter("frozen", at::full({4}, 2.5f), false);
    counts = register_parameter("counts", at::arange(3, at::kInt), false);
    alias = register_parameter("alias", tied);
    number = register_buffer("number", at::full({2}, 7, at::kInt));
    flag = register_buffer("flag", at::ones({1}, at::kBool));
  }
  at::Tensor transposed, empty, frozen, counts, alias, number, flag;
};

TEST(Groups, UnusualParametersAndBuffers) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      auto module = std::make_shared<OddModule>();
      ASSERT_FALSE(module->transposed.is_contiguous());
      const at::Tensor transposed = module->transposed.detach().clone();
      if (ranks->rank() == 1) { // rank 0's values are everybody's
        const at::NoGradGuard no_grad;
        module->counts.fill_(9);
        module->number.fill_(9);
        module->flag.fill_(false);
        module->frozen.fill_(9);
        module->transposed.fill_(9);
      }
      Engine engine =
          make_engine(module, ranks, {.stage = stage, .dtype = "bf16"});
      EXPECT_TRUE(at::equal(module->counts, at::arange(3, at::kInt)));
      EXPECT_TRUE(at::equal(module->number, at::full({2}, 7, at::kInt)));
      EXPECT_TRUE(module->flag.item<bool>());
      EXPECT_EQ(module->factor.scalar_type(), at::kFloat); // as in DeepSpeed
      EXPECT_EQ(module->empty.scalar_type(), at::kBFloat16);
      EXPECT_EQ(module->frozen.scalar_type(), at::kBFloat16);
      EXPECT_EQ(module->frozen[0].item<float>(), 2.5f);
      EXPECT_TRUE(at::equal(module->transposed, transposed.to(at::kBFloat16)));
      std::vector<std::string> names;
      for (const auto& [name, tensor] : engine.fp32_parameters()) {
        names.push_back(name);
      }
      EXPECT_THAT(
          names,
          testing::ElementsAre(
              "first", "shift", "unused", "tied", "last", "transposed"));
      const auto loss = [&](int64_t batch) {
        return loss_of(*module, batch) +
            module->transposed.square().sum().to(at::kFloat) +
            module->alias.sum().to(at::kFloat);
      };
      engine.backward(loss(ranks->rank()));
      engine.step();
      EXPECT_FALSE(at::equal(module->transposed, transposed.to(at::kBFloat16)));
      EXPECT_TRUE(module->alias.is_same(module->tied));
      EXPECT_EQ(module->frozen[0].item<float>(), 2.5f);
    });
  }
}

TEST(Groups, UnusedParametersAreNamedOnceOrRefused) {
  on_ranks(2, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.stage = 1});
    testing::internal::CaptureStderr();
    train_step(engine, *module, 0);
    train_step(engine, *module, 1);
    const std::string said = testing::internal::GetCapturedStderr();
    const std::string line = "(they get zeros): unused\n";
    EXPECT_EQ(said.find(line) != std::string::npos, ranks->rank() == 0);
    EXPECT_EQ(said.find(line), said.rfind(line)) << said;

    config::Context context;
    context.world_size = 2;
    config::Config strict =
        config::parse_config(config_text({}), "test", context);
    strict.zero_optimization.ignore_unused_parameters = false;
    InitializeOptions options;
    options.ranks = ranks;
    Engine refusing =
        initialize(std::make_shared<SmallModule>(), strict, options);
    auto& other = dynamic_cast<SmallModule&>(refusing.module());
    EXPECT_EQ(
        comm::error_of([&] { train_step(refusing, other, 0); }),
        "78 parameters without a gradient: unused");
  });
}

TEST(Groups, EnginesComeAndGoAndMove) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      const RunPlan plan{.stage = stage, .bucket = 1};
      auto module = std::make_shared<SmallModule>();
      Engine first = make_engine(module, ranks, plan);
      train_step(first, *module, 0);
      Engine moved = std::move(first);
      train_step(moved, *module, 1);
      EXPECT_EQ(moved.global_steps(), 2);
      // The same module again: the weights go on, the moments begin anew.
      const auto before = copies_of(*module);
      moved = make_engine(module, ranks, plan);
      EXPECT_EQ(largest_difference(before, copies_of(*module)), 0);
      EXPECT_EQ(moved.global_steps(), 0);
      train_step(moved, *module, 2);
      EXPECT_GT(largest_difference(before, copies_of(*module)), 1e-4);
      // And two at a time.
      auto other = std::make_shared<SmallModule>();
      Engine second = make_engine(other, ranks, plan);
      train_step(second, *other, 0);
      train_step(moved, *module, 3);
      EXPECT_EQ(second.global_steps(), 1);
      EXPECT_EQ(moved.global_steps(), 2);
    });
  }
}

TEST(Groups, RanksMustHaveTheSameConfiguration) {
  on_ranks(2, [](const auto& ranks) {
    RunPlan plan;
    plan.optimizer = ranks->rank() == 0
        ? R"({"type": "Adam", "params": {"lr": 0.01}})"
        : R"({"type": "Adam", "params": {"lr": 0.02}})";
    const std::string error = comm::error_of(
        [&] { make_engine(std::make_shared<SmallModule>(), ranks, plan); });
    EXPECT_THAT(error, testing::StartsWith("78 "));
    EXPECT_THAT(error, HasSubstr("the configuration"));
    EXPECT_THAT(error, HasSubstr("rank 1"));
  });
}

} // namespace
} // namespace deepspeed
