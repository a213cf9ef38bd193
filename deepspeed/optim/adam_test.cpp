// Adam on flat buffers against torch.optim's formula written out in operators.
#include "deepspeed/optim/adam.h"

#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace deepspeed::optim {
namespace {

// Three parameters; the middle one never gets a gradient.
struct Module : torch::nn::Module {
  Module() {
    a = register_parameter("a", at::randn({7, 5}));
    unused = register_parameter("unused", at::randn({11}));
    b = register_parameter("b", at::randn({70000}));
  }
  at::Tensor loss(const at::Tensor& x, const at::Tensor& y) {
    return (a * x).pow(2).sum() + (b * y).sin().sum();
  }
  at::Tensor a, unused, b;
};

// torch/optim/adam.py, _single_tensor_adam.
void plain_adam(
    const AdamOptions& options,
    int64_t step,
    double lr,
    at::Tensor p,
    at::Tensor g,
    at::Tensor m,
    at::Tensor v) {
  if (options.weight_decay != 0) {
    if (options.decoupled_weight_decay) {
      p.mul_(1 - lr * options.weight_decay);
    } else {
      g = g.add(p, options.weight_decay);
    }
  }
  m.lerp_(g, 1 - options.beta1);
  v.mul_(options.beta2).addcmul_(g, g, 1 - options.beta2);
  const double correction1 = 1 - std::pow(options.beta1, step);
  const double correction2 = 1 - std::pow(options.beta2, step);
  const at::Tensor denominator =
      (v.sqrt() / std::sqrt(correction2)).add_(options.eps);
  p.addcdiv_(m, denominator, -lr / correction1);
}

void check_against_plain(const AdamOptions& options, at::ScalarType dtype) {
  at::manual_seed(1);
  Module module;
  flat::FlatParameters parameters(module, dtype);
  Adam adam(parameters, options);
  auto& entries = parameters.entries();
  std::vector<at::Tensor> p;
  std::vector<at::Tensor> m;
  std::vector<at::Tensor> v;
  for (const auto& entry : entries) {
    p.push_back(parameters.master(entry).clone());
    m.push_back(at::zeros_like(parameters.master(entry)));
    v.push_back(at::zeros_like(parameters.master(entry)));
  }
  for (int64_t step = 1; step <= 5; ++step) {
    const at::Tensor x = at::randn({7, 5});
    const at::Tensor y = at::randn({70000});
    parameters.begin_step();
    module.loss(x.to(dtype), y.to(dtype)).backward();
    parameters.collect();
    const double scale = 0.5;
    for (size_t i : {0, 2}) {
      plain_adam(
          options,
          step,
          1e-2,
          p[i],
          entries[i].slot.grad() * scale,
          m[i],
          v[i]);
    }
    adam.step(1e-2, scale);
    for (size_t i : {0, 1, 2}) {
      EXPECT_TRUE(
          at::allclose(parameters.master(entries[i]), p[i], 2e-6, 1e-7));
      EXPECT_TRUE(at::allclose(adam.state()[i].exp_avg, m[i], 2e-6, 1e-7));
      EXPECT_TRUE(at::allclose(adam.state()[i].exp_avg_sq, v[i], 2e-6, 1e-9));
      EXPECT_TRUE(at::equal(
          entries[i].parameter, parameters.master(entries[i]).to(dtype)));
    }
    EXPECT_EQ(adam.state()[0].step, step);
    EXPECT_EQ(adam.state()[1].step, 0);
  }
}

TEST(Adam, FollowsTorch) {
  check_against_plain({}, at::kFloat);
}
TEST(Adam, FollowsTorchWithWeightDecay) {
  check_against_plain({.weight_decay = 0.1}, at::kFloat);
}
TEST(Adam, FollowsTorchAdamW) {
  check_against_plain(
      {.weight_decay = 0.1, .decoupled_weight_decay = true}, at::kFloat);
}
TEST(Adam, KeepsFp32MasterWeightsOfABf16Module) {
  check_against_plain({}, at::kBFloat16);
}

TEST(Adam, WeightsChangedInPlaceAreNotUndone) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    Module module;
    flat::FlatParameters parameters(module, dtype);
    Adam adam(parameters, {});
    parameters.begin_step();
    module.loss(at::ones({7, 5}, dtype), at::ones({70000}, dtype)).backward();
    parameters.collect();
    {
      const at::NoGradGuard no_grad;
      module.a.fill_(2);
      module.unused.fill_(3);
    }
    adam.step(1e-6);
    EXPECT_NEAR(module.a.to(at::kFloat).min().item<double>(), 2, 1e-4);
    EXPECT_EQ(module.unused.min().item<double>(), 3);
    EXPECT_EQ(
        parameters.master(parameters.entries()[1]).max().item<double>(), 3);
  }
}

// As a block with fused gradients would write `rows` of 6 with those of `more`
// added.
void write_gradient(
    flat::GradientSlot& slot,
    const at::Tensor& rows,
    const std::vector<int64_t>& more) {
  flat::RowConsumer* const consumer = slot.row_consumer();
  const flat::GradientTarget target = slot.take();
  if (consumer == nullptr) {
    at::Tensor(target.grad).copy_(rows);
  } else {
    consumer->begin(more);
    for (int64_t row = 4; row >= 0; row -= 2) { // in any order
      const at::Tensor part = rows.narrow(0, row, 2).contiguous();
      consumer->take(row, row + 2, part.data_ptr<float>());
    }
  }
  for (const int64_t row : more) {
    at::Tensor(slot.take().grad)[row].add_(1);
  }
}

// Weights, moments and norms after four steps, the last without an early start.
std::vector<at::Tensor> updated(bool early, at::ScalarType dtype) {
  at::manual_seed(3);
  Module module;
  module.a.set_data(at::randn({6, 70}));
  flat::FlatParameters parameters(module, dtype);
  Adam adam(parameters, {.weight_decay = 0.1});
  flat::GradientSlot& slot = parameters.entries()[0].slot;
  slot.traits.rows_come_last = true;
  const std::vector<std::vector<int64_t>> more = {{1, 2, 5}, {}, {0, 3}, {4}};
  std::vector<double> norms;
  for (size_t step = 0; step < more.size(); ++step) {
    parameters.begin_step();
    if (early && step + 1 < more.size()) {
      adam.start_early(1e-2, 0.5, /*with_norm=*/true);
    }
    write_gradient(slot, at::randn({6, 70}), more[step]);
    at::Tensor(parameters.entries()[2].slot.take().grad).normal_();
    norms.push_back(adam.gradient_norm());
    adam.step(1e-2, 0.5);
    EXPECT_EQ(adam.state()[0].step, static_cast<int64_t>(step) + 1);
  }
  return {
      at::tensor(norms, at::kDouble),
      parameters.master().clone(),
      parameters.compute().clone(),
      adam.state()[0].exp_avg.clone(),
      adam.state()[0].exp_avg_sq.clone()};
}

TEST(Adam, AnEarlyStartChangesNothing) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const std::vector<at::Tensor> late = updated(false, dtype);
    const std::vector<at::Tensor> early = updated(true, dtype);
    EXPECT_TRUE(at::allclose(early[0], late[0], 1e-12));
    for (size_t i = 1; i < late.size(); ++i) {
      EXPECT_TRUE(at::equal(early[i], late[i])) << i;
    }
  }
}

TEST(Adam, AnEarlyStartIsForOneDenseGradient) {
  Module module;
  flat::FlatParameters parameters(module, at::kFloat);
  Adam adam(parameters, {});
  flat::GradientSlot& slot = parameters.entries()[0].slot;
  slot.traits.rows_come_last = true;
  adam.start_early(1e-2);
  EXPECT_NE(slot.row_consumer(), nullptr);
  slot.take();
  EXPECT_THROW(slot.row_consumer(), std::logic_error);
  adam.step(1e-2);
  EXPECT_EQ(slot.row_consumer(), nullptr);
}

TEST(Adam, TheNormOfAnEarlyStartMustBeAskedFor) {
  Module module;
  module.a.set_data(at::randn({6, 70}));
  flat::FlatParameters parameters(module, at::kFloat);
  Adam adam(parameters, {});
  flat::GradientSlot& slot = parameters.entries()[0].slot;
  slot.traits.rows_come_last = true;
  parameters.begin_step();
  adam.start_early(1e-2);
  write_gradient(slot, at::randn({6, 70}), {});
  EXPECT_THROW(adam.gradient_norm(), std::logic_error);
}

TEST(GradientNorm, LeavesOutParametersWithoutGradient) {
  Module module;
  flat::FlatParameters parameters(module, at::kFloat);
  parameters.gradients().fill_(std::numeric_limits<float>::quiet_NaN());
  parameters.begin_step();
  module.loss(at::randn({7, 5}), at::randn({70000})).backward();
  parameters.collect();
  const auto& entries = parameters.entries();
  const double expected = std::sqrt(
      entries[0].slot.grad().to(at::kDouble).pow(2).sum().item<double>() +
      entries[2].slot.grad().to(at::kDouble).pow(2).sum().item<double>());
  EXPECT_NEAR(gradient_norm(parameters), expected, 1e-9 * expected);
  EXPECT_NEAR(gradient_norm(parameters, 0.25), expected / 4, 1e-9 * expected);
}

TEST(GradientNorm, DoesNotDependOnTheThreads) {
  Module module;
  flat::FlatParameters parameters(module, at::kFloat);
  parameters.begin_step();
  module.loss(at::randn({7, 5}), at::randn({70000})).backward();
  parameters.collect();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = gradient_norm(parameters);
  at::set_num_threads(3);
  const double three = gradient_norm(parameters);
  at::set_num_threads(threads);
  EXPECT_EQ(one, three);
}

TEST(ClipFactor, OnlyShrinks) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 0.25, 1e-6);
  EXPECT_TRUE(std::isnan(clip_factor(NAN, 1.0)));
}

} // namespace
} // namespace deepspeed::optim
