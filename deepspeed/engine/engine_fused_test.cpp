// A model with fused blocks whose parameters get gradients more than once in a
// backward pass.
#include "deepspeed/bert/roberta.h"
#include "deepspeed/engine/test_steps.h"
#include "deepspeed/flat/test_recompute.h"

namespace deepspeed {
namespace {

std::shared_ptr<const bert::Batch> fused_batch(int seed) {
  text::PackedBatch packed;
  packed.cu_seqlens.push_back(0);
  for (const int length : {9, 14}) {
    for (int i = 0; i < length; ++i) {
      if (i % 5 == 3) {
        packed.masked.push_back(static_cast<int32_t>(packed.ids.size()));
        packed.labels.push_back((i * 13 + seed * 7) % 61);
      }
      packed.ids.push_back((i * 11 + seed * 5 + length) % 61);
      packed.positions.push_back(2 + i);
    }
    packed.cu_seqlens.push_back(static_cast<int32_t>(packed.ids.size()));
    packed.visits.push_back(packed.visits.size());
  }
  return std::make_shared<bert::Batch>(std::move(packed));
}

bert::RobertaForMaskedLM fused_model(bert::Implementation implementation) {
  bert::RobertaOptions options;
  options.config.vocab_size = 61;
  options.config.hidden_size = 16;
  options.config.num_hidden_layers = 2;
  options.config.num_attention_heads = 2;
  options.config.intermediate_size = 24;
  options.implementation = implementation;
  bert::RobertaForMaskedLM model(options);
  model->eval(); // no dropout
  return model;
}

// Two uses of the whole model in one loss, each computed again in backward or
// not.
at::Tensor fused_loss(
    bert::RobertaForMaskedLM& model,
    int seed,
    bool again_first,
    bool again_second) {
  const auto use = [&](int batch, bool again) {
    const flat::Segment segment = [=](const at::Tensor& factor) mutable {
      return model->forward(fused_batch(batch)) * factor;
    };
    const at::Tensor one = at::ones({}).requires_grad_();
    return again ? flat::recomputed(one, segment) : segment(one);
  };
  return use(2 * seed, again_first) + 0.5 * use(2 * seed + 1, again_second);
}

TEST(Fused, AModelMayBeUsedMoreThanOnceInABackward) {
  on_ranks(2, [](const auto& ranks) {
    auto plain = fused_model(bert::Implementation::reference);
    ((fused_loss(plain, 0, false, false) + fused_loss(plain, 1, false, false)) /
     2)
        .backward();
    double squares = 0;
    for (const at::Tensor& parameter : plain->parameters()) {
      if (parameter.grad().defined()) {
        squares += parameter.grad().square().sum().template item<double>();
        const at::NoGradGuard no_grad;
        at::Tensor(parameter).sub_(0.1 * parameter.grad());
      }
    }
    for (const auto& [first, second] : std::vector<std::pair<bool, bool>>{
             {false, false}, {true, false}, {false, true}, {true, true}}) {
      std::vector<at::Tensor> same;
      for (const int stage : {0, 1, 2}) {
        auto model = fused_model(bert::Implementation::fast);
        RunPlan plan{.stage = stage, .bucket = 100};
        plan.optimizer = R"({"type": "SGD", "params": {"lr": 0.1}})";
        plan.more = R"(, "gradient_clipping": 0)";
        Engine engine = make_engine(model.ptr(), ranks, plan);
        engine.backward(fused_loss(model, ranks->rank(), first, second));
        engine.step();
        EXPECT_NEAR(engine.get_global_grad_norm() / std::sqrt(squares), 1, 1e-4)
            << "stage " << stage;
        EXPECT_LT(
            largest_difference(copies_of(*model), copies_of(*plain)), 1e-5);
        if (same.empty()) {
          same = copies_of(*model);
        }
        EXPECT_EQ(largest_difference(copies_of(*model), same), 0);
      }
    }
  });
}

} // namespace
} // namespace deepspeed
