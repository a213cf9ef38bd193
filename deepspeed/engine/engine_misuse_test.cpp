// What programs do to a module behind the engine's back: it is said, or it
// works.
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <stdexcept>

#include "deepspeed/engine/test_steps.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/flat/flat_parameters.h"

namespace deepspeed {
namespace {

using testing::HasSubstr;

// What std::logic_error says; "" if none is thrown.
template <typename Action>
std::string fault_of(Action&& action) {
  try {
    action();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "";
}

TEST(Misuse, ABackwardByHandIsNotLostSilently) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      const RunPlan plan{.stage = stage, .accumulation = 2};
      auto expected = std::make_shared<SmallModule>();
      Engine undisturbed = make_engine(expected, ranks, plan);
      train_step(undisturbed, *expected, 0);

      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      const auto loss = [&](int micro) {
        return loss_of(*module, 2 * micro + ranks->rank());
      };
      const std::string said =
          "has a gradient of a backward pass that is not the engine's";
      // Before a step, before step(), between micro batches.
      loss(5).backward();
      EXPECT_THAT(fault_of([&] { engine.backward(loss(0)); }), HasSubstr(said));
      // It is the program's: as without an engine, and taken away by it.
      SmallModule plain;
      loss_of(plain, 10 + ranks->rank()).backward();
      EXPECT_TRUE(at::equal(module->first.grad(), plain.first.grad()));
      module->zero_grad();
      engine.backward(loss(0));
      loss(5).backward();
      EXPECT_THAT(fault_of([&] { engine.step(); }), HasSubstr(said));
      module->zero_grad();
      engine.step();
      loss(5).backward();
      EXPECT_THAT(fault_of([&] { engine.backward(loss(1)); }), HasSubstr(said));
      module->zero_grad();
      engine.backward(loss(1));
      engine.step();
      EXPECT_EQ(
          largest_difference(copies_of(*expected), copies_of(*module)), 0);
    });
  }
}

TEST(Misuse, WeightsChangedInPlaceStay) {
  for (const std::string dtype : {"fp32", "bf16", "fp16"}) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        RunPlan plan{.stage = stage, .dtype = dtype};
        plan.optimizer = R"({"type": "SGD", "params": {"lr": 1e-6}})";
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        train_step(engine, *module, 0);
        const auto before = engine.fp32_parameters();
        testing::internal::CaptureStderr();
        {
          const at::NoGradGuard no_grad;
          module->first.fill_(0.25);
          module->tied.index({0, 0}).fill_(0.75);
        }
        const auto after = engine.fp32_parameters();
        for (size_t i = 0; i < after.size(); ++i) {
          at::Tensor values = before[i].second.clone();
          if (after[i].first == "first") {
            values.fill_(0.25);
          } else if (after[i].first == "tied") {
            values[0][0] = 0.75; // the others keep all of their bits
          }
          EXPECT_TRUE(at::equal(after[i].second, values)) << after[i].first;
        }
        train_step(engine, *module, 1);
        EXPECT_NEAR(module->first[3][3].template item<double>(), 0.25, 1e-4);
        EXPECT_NEAR(module->tied[0][0].template item<double>(), 0.75, 1e-4);
        const std::string said = testing::internal::GetCapturedStderr();
        const std::string line =
            "weights were changed in place, training goes on from the new "
            "ones: first, tied\n";
        EXPECT_EQ(said.find(line) != std::string::npos, ranks->rank() == 0);
      });
    }
  }
}

TEST(Misuse, WeightsChangedByOneRankAreRefusedByAll) {
  on_ranks(2, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {});
    train_step(engine, *module, 0);
    if (ranks->rank() == 1) {
      const at::NoGradGuard no_grad;
      module->last.clamp_(-0.01, 0.01);
    }
    const std::string said =
        "not alike on all ranks: other ones, or to other values, on rank 1";
    EXPECT_THAT(
        fault_of([&] { train_step(engine, *module, 1); }), HasSubstr(said));
    // As of an initialization that draws other numbers on each rank.
    module = std::make_shared<SmallModule>();
    Engine other = make_engine(module, ranks, {});
    const file::TemporaryFolder folder;
    const std::string path = ranks->broadcast_text(folder.path(), 0);
    other.save_checkpoint(path);
    const auto draw = [&] {
      const at::NoGradGuard no_grad;
      module->last.fill_(0.1 * (1 + ranks->rank()));
    };
    draw();
    EXPECT_THAT(
        fault_of([&] { train_step(other, *module, 0); }), HasSubstr(said));
    draw();
    other.load_checkpoint(path); // overwrites it
    EXPECT_EQ(fault_of([&] { train_step(other, *module, 0); }), "");
    ranks->barrier();
  });
}

TEST(Misuse, AModuleThatWasMovedIsRefused) {
  on_ranks(1, [](const auto& ranks) {
    const file::TemporaryFolder folder;
    const std::vector<std::function<void(SmallModule&)>> moves = {
        [](SmallModule& module) { module.to(at::kDouble); },
        [](SmallModule& module) {
          module.to(at::kBFloat16);
          module.to(at::kFloat);
        },
        [](SmallModule& module) {
          module.last.set_data(at::ones({1, 7}));
        }};
    for (const auto& move : moves) {
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, {});
      train_step(engine, *module, 0);
      move(*module);
      const std::string said = "is not where it is trained any more";
      const at::Tensor loss =
          module->forward(micro_batch(0).first.to(module->first.scalar_type()))
              .sum();
      EXPECT_THAT(fault_of([&] { engine.backward(loss); }), HasSubstr(said));
      EXPECT_THAT(
          fault_of([&] { engine.save_checkpoint(folder.path()); }),
          HasSubstr(said));
      EXPECT_THAT(fault_of([&] { engine.fp32_parameters(); }), HasSubstr(said));
    }
    // Nothing has moved.
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {});
    module->to(at::kFloat);
    module->to(at::kCPU);
    train_step(engine, *module, 0);
  });
}

struct TwoLayers : torch::nn::Module {
  TwoLayers() {
    in = register_module("in", torch::nn::Linear(4, 4));
    out = register_module("out", torch::nn::Linear(4, 4));
  }
  at::Tensor loss() {
    return out(in(at::ones({2, 4}).to(in->weight.scalar_type())))
        .to(at::kFloat)
        .square()
        .sum();
  }
  torch::nn::Linear in{nullptr}, out{nullptr};
};

TEST(Misuse, TiesMadeBySetDataAreRefused) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<TwoLayers>();
    module->out->weight.set_data(module->in->weight.detach());
    EXPECT_EQ(
        comm::error_of([&] { make_engine(module, ranks, {}); }),
        "78 parameter in.weight shares its memory with out.weight, but is "
        "another tensor");
    EXPECT_EQ(
        comm::error_of([&] { flat::FlatParameters(*module, at::kFloat); }),
        "78 parameter in.weight shares its memory with out.weight, but is "
        "another tensor");
    module = std::make_shared<TwoLayers>();
    module->register_buffer("view", module->in->weight.detach().t());
    EXPECT_EQ(
        comm::error_of([&] { make_engine(module, ranks, {}); }),
        "78 parameter in.weight shares its memory with buffer view, but is "
        "another tensor");
    // As it is meant: parts of one tensor, and one tensor in two places.
    module = std::make_shared<TwoLayers>();
    const at::Tensor both = at::randn({8, 4});
    module->in->weight.set_data(both.narrow(0, 0, 4));
    module->out->weight.set_data(both.narrow(0, 4, 4));
    module->out->bias = module->in->bias;
    Engine engine = make_engine(module, ranks, {});
    engine.backward(module->loss());
    engine.step();
  });
}

TEST(Misuse, AViewFromBeforeIsNamed) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<TwoLayers>();
    at::Tensor view = module->in->weight.t();
    const at::Tensor copy = module->out->weight.detach().clone();
    testing::internal::CaptureStderr();
    Engine engine = make_engine(module, ranks, {.dtype = "bf16"});
    EXPECT_THAT(
        testing::internal::GetCapturedStderr(),
        HasSubstr("training does not reach it: of in.weight\n"));
    view.reset();
    testing::internal::CaptureStderr();
    Engine again = make_engine(module, ranks, {.dtype = "bf16"});
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  });
}

TEST(Misuse, NoGradientAtAllIsAnError) {
  for (const int stage : {0, 1, 2}) {
    on_ranks(2, [&](const auto& ranks) {
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, {.stage = stage});
      const at::Tensor other = at::ones({3}).requires_grad_();
      engine.backward(other.sum());
      EXPECT_EQ(
          fault_of([&] { engine.step(); }),
          "none of the 5 parameters got a gradient: the loss does not depend "
          "on them");
      // On one rank alone it may be meant.
      engine.backward(ranks->rank() == 0 ? other.sum() : loss_of(*module, 0));
      engine.step();
      EXPECT_GT(engine.get_global_grad_norm(), 0);
    });
  }
}

TEST(Misuse, UnfreezingAfterwardsIsRefused) {
  for (const bool in_groups : {false, true}) {
    on_ranks(2, [&](const auto& ranks) {
      auto module = std::make_shared<SmallModule>();
      module->tied.requires_grad_(false);
      module->unused.requires_grad_(false);
      InitializeOptions options;
      if (in_groups) {
        options.param_groups = {
            {{module->first, module->shift, module->tied}, {}, {}}};
      }
      Engine engine = make_engine(module, ranks, {}, options);
      train_step(engine, *module, 0);
      module->tied.requires_grad_(true);
      EXPECT_THAT(
          fault_of([&] { train_step(engine, *module, 1); }),
          HasSubstr("parameter tied requires a gradient, but did not in"));
      module->tied.requires_grad_(false);
      train_step(engine, *module, 1);
      // What is in no group is the program's own.
      module->unused.requires_grad_(true);
      EXPECT_EQ(
          fault_of([&] { train_step(engine, *module, 2); }).empty(), in_groups);
    });
  }
}

TEST(Misuse, FreezingAfterwardsIsSaidOnce) {
  on_ranks(2, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {});
    train_step(engine, *module, 0);
    module->tied.requires_grad_(false);
    testing::internal::CaptureStderr();
    train_step(engine, *module, 1);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(
        said.find("weight decay still move them: tied\n") != std::string::npos,
        ranks->rank() == 0)
        << said;
    testing::internal::CaptureStderr();
    train_step(engine, *module, 2);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  });
}

TEST(Misuse, ParametersOfAFirstForwardAreRefused) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {});
    module->register_parameter("lazy", at::ones({3}));
    EXPECT_THAT(
        fault_of([&] { train_step(engine, *module, 0); }),
        HasSubstr("registered after initialize() and are not trained: lazy."));
    // Later it costs a walk, so a save says it.
    train_step(engine, *module, 0);
    testing::internal::CaptureStderr();
    engine.save_checkpoint(folder.path());
    EXPECT_EQ(
        testing::internal::GetCapturedStderr().find("not trained: lazy\n") !=
            std::string::npos,
        ranks->rank() == 0);
  });
}

struct Words : torch::nn::Module {
  explicit Words(bool sparse) {
    table = register_module(
        "table",
        torch::nn::Embedding(torch::nn::EmbeddingOptions(9, 3).sparse(sparse)));
    bag = register_module(
        "bag",
        torch::nn::EmbeddingBag(torch::nn::EmbeddingBagOptions(9, 3)
                                    .mode(torch::kSum)
                                    .sparse(sparse)));
    const at::NoGradGuard no_grad;
    for (const at::Tensor& parameter : parameters()) {
      parameter.flatten().copy_(at::arange(27) * 0.1);
    }
  }
  at::Tensor loss(int64_t batch) {
    const at::Tensor ids = at::tensor({1, 4, 1, 7}) + (batch % 2);
    return table(ids).to(at::kFloat).square().sum() +
        bag(ids.view({2, 2})).to(at::kFloat).pow(3).sum();
  }
  torch::nn::Embedding table{nullptr};
  torch::nn::EmbeddingBag bag{nullptr};
};

TEST(SparseGradients, AreMadeDense) {
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const int stage : {0, 1, 2}) {
      on_ranks(2, [&](const auto& ranks) {
        const RunPlan plan{.stage = stage, .accumulation = 2, .dtype = dtype};
        std::vector<at::Tensor> results[2];
        for (const bool sparse : {false, true}) {
          auto module = std::make_shared<Words>(sparse);
          Engine engine = make_engine(module, ranks, plan);
          for (int micro = 0; micro < 4; ++micro) {
            engine.backward(module->loss(micro + ranks->rank()));
            engine.step();
          }
          EXPECT_EQ(engine.global_steps(), 2);
          results[sparse] = copies_of(*module);
        }
        EXPECT_LT(
            largest_difference(results[0], results[1]),
            dtype == "fp32" ? 1e-6 : 2e-2);
      });
    }
  }
}

TEST(Settings, BatchSizesAreThoseOfTheRanks) {
  on_ranks(2, [](const auto& ranks) {
    const std::string text = R"({"train_batch_size": 12, "optimizer":
        {"type": "Adam", "params": {"lr": 0.01}}})";
    InitializeOptions options;
    options.ranks = ranks;
    const auto module = std::make_shared<SmallModule>();
    EXPECT_EQ(
        comm::error_of([&] {
          initialize(module, config::parse_config(text, "text", {}), options);
        }),
        "78 train_batch_size 12 is not 12 (micro batch) x 1 (accumulation) x 2 "
        "(ranks)");
    const Engine engine =
        initialize(module, base::parse_json(text, "text"), options);
    EXPECT_EQ(engine.train_micro_batch_size_per_gpu(), 6);
  });
}

TEST(Settings, OneRateForAGroup) {
  on_ranks(1, [](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    InitializeOptions options;
    options.learning_rate = [](int64_t) { return 0.5; };
    options.param_groups = {{module->parameters(), 0.1, {}}};
    EXPECT_EQ(
        comm::error_of([&] { make_engine(module, ranks, {}, options); }),
        "78 the program sets the learning rate of all groups "
        "(InitializeOptions), and that of one group (ParamGroup)");
    options.param_groups.clear();
    RunPlan plan;
    plan.more = R"(, "scheduler": {"type": "WarmupLR",
        "params": {"warmup_num_steps": 5}})";
    EXPECT_EQ(
        comm::error_of([&] { make_engine(module, ranks, plan, options); }),
        "78 the program sets the learning rate (InitializeOptions), and the "
        "configuration has a scheduler");
  });
}

} // namespace
} // namespace deepspeed
