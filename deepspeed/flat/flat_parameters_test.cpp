// Flat buffers: order, views, and who overwrites and who adds.
#include "deepspeed/flat/flat_parameters.h"

#include <gtest/gtest.h>

#include <functional>

namespace deepspeed::flat {
namespace {

struct Child : torch::nn::Module {
  Child() {
    weight = register_parameter("weight", at::full({2}, 3.0));
  }
  at::Tensor weight;
};

struct Module : torch::nn::Module {
  Module() {
    child = register_module("child", std::make_shared<Child>());
    own = register_parameter("own", at::tensor({1.0f, 1.0f / 3, 2.0f}));
    unused = register_parameter("unused", at::ones({2, 2}));
  }
  at::Tensor loss() {
    return own.sum() * 2 + (child->weight * child->weight).sum();
  }
  std::shared_ptr<Child> child;
  at::Tensor own, unused;
};

TEST(FlatParameters, KeepsTheOrderOfParameters) {
  Module module;
  FlatParameters flat(module, at::kFloat);
  ASSERT_EQ(flat.entries().size(), 3u);
  EXPECT_EQ(flat.entries()[0].name, "own");
  EXPECT_EQ(flat.entries()[1].name, "unused");
  EXPECT_EQ(flat.entries()[2].name, "child.weight");
  EXPECT_EQ(flat.entries()[2].offset, 7);
  EXPECT_EQ(flat.numel(), 9);
}

TEST(FlatParameters, ParametersAreViewsOfTheBuffer) {
  Module module;
  FlatParameters flat(module, at::kFloat);
  flat.compute().fill_(5);
  EXPECT_EQ(module.child->weight[1].item<float>(), 5);
  EXPECT_TRUE(module.own.requires_grad());
  EXPECT_TRUE(flat.master().is_same(flat.compute()));
}

TEST(FlatParameters, MasterKeepsFp32Values) {
  Module module;
  FlatParameters flat(module, at::kBFloat16);
  EXPECT_EQ(module.own.scalar_type(), at::kBFloat16);
  EXPECT_EQ(flat.master()[1].item<float>(), 1.0f / 3);
  EXPECT_NE(module.own[1].item<float>(), 1.0f / 3);
  flat.master().fill_(2);
  flat.refresh_compute();
  EXPECT_EQ(module.own[1].item<float>(), 2);
}

TEST(FlatParameters, CollectsAutogradsGradients) {
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    Module module;
    FlatParameters flat(module, dtype);
    flat.gradients().fill_(100); // leftovers must not matter
    flat.begin_step();
    for (int micro = 1; micro <= 3; ++micro) {
      module.loss().backward();
      flat.collect();
      EXPECT_EQ(flat.entries()[0].slot.grad()[0].item<float>(), 2 * micro);
      EXPECT_EQ(flat.entries()[2].slot.grad()[0].item<float>(), 6 * micro);
    }
    EXPECT_TRUE(flat.entries()[1].slot.is_fresh());
    const auto ranges = flat.ranges_with_gradient();
    ASSERT_EQ(ranges.size(), 2u);
    EXPECT_EQ(ranges[0].begin, 0);
    EXPECT_EQ(ranges[0].end, 3);
    EXPECT_EQ(ranges[1].begin, 7);
    EXPECT_EQ(ranges[1].end, 9);
  }
}

TEST(FlatParameters, ChangesInPlaceAreTaken) {
  const auto change = [](const at::Tensor& parameter) {
    const at::NoGradGuard no_grad;
    parameter[0].fill_(0.25);
  };
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    Module module;
    FlatParameters flat(module, dtype);
    const auto collect = [&] {
      flat.begin_step();
      change(module.own);
      flat.collect();
    };
    const auto begin_step = [&] {
      change(module.own);
      flat.begin_step();
    };
    for (const std::function<void()>& call :
         {std::function<void()>(collect), std::function<void()>(begin_step)}) {
      flat.master().narrow(0, 0, 1).fill_(1);
      call();
      EXPECT_EQ(flat.master()[0].item<float>(), 0.25f);
      EXPECT_EQ(flat.master()[1].item<float>(), 1.0f / 3) << "all of its bits";
      flat.refresh_compute();
      EXPECT_EQ(module.own[0].item<float>(), 0.25f);
    }
  }
}

TEST(GradientOutputs, FirstWriterOverwritesLaterOnesAdd) {
  GradientSlot slot;
  slot.set_place(at::full({2}, 9.0));
  const std::vector<at::Tensor> parameters{at::zeros({2}), at::zeros({3})};
  GradientOutputs first({&slot, nullptr}, parameters);
  EXPECT_FALSE(first.take(0).add);
  EXPECT_FALSE(first.take(1).add);
  GradientOutputs second({&slot, nullptr}, parameters);
  EXPECT_TRUE(second.take(0).add);
  // Slots hold the gradient themselves; others go back to autograd.
  EXPECT_FALSE(second.results()[0].defined());
  EXPECT_TRUE(first.results()[1].defined());
}

} // namespace
} // namespace deepspeed::flat
