// Adam against the formula in double, and the norms.
#include "deepspeed/kernels/adam.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

struct State {
  explicit State(int64_t n)
      : weight(random_array<float>(n, 1)),
        m(n, 0.0f),
        v(n, 0.0f),
        low(n),
        half(n) {}
  AdamArrays arrays(const std::vector<float>& gradient) {
    return {
        gradient.data(),
        weight.data(),
        m.data(),
        v.data(),
        low.data(),
        half.data()};
  }
  std::vector<float> weight, m, v;
  std::vector<base::BFloat16> low;
  std::vector<base::Float16> half;
};

// torch/optim/adam.py, _single_tensor_adam, in double.
struct Reference {
  explicit Reference(const State& state)
      : weight(doubles(state.weight)), m(weight.size()), v(weight.size()) {}
  void update(const AdamStep& s, const std::vector<float>& gradient) {
    const double correction1 = 1 - std::pow(s.beta1, s.step);
    const double correction2 = 1 - std::pow(s.beta2, s.step);
    for (size_t i = 0; i < weight.size(); ++i) {
      double g = static_cast<double>(gradient[i]) * s.grad_scale;
      if (s.decoupled) {
        weight[i] *= 1 - s.lr * s.weight_decay;
      } else {
        g += s.weight_decay * weight[i];
      }
      m[i] += (1 - s.beta1) * (g - m[i]);
      v[i] = v[i] * s.beta2 + (1 - s.beta2) * g * g;
      const double denominator =
          std::sqrt(v[i]) / std::sqrt(correction2) + s.eps;
      weight[i] -= s.lr / correction1 * m[i] / denominator;
    }
  }
  std::vector<double> weight, m, v;
};

void compare(AdamStep step, int64_t n) {
  State state(n);
  Reference reference(state);
  for (step.step = 1; step.step <= 10; ++step.step) {
    const std::vector<float> gradient =
        random_array<float>(n, static_cast<uint32_t>(10 + step.step), 8.0f);
    reference.update(step, gradient);
    adam_update(step, state.arrays(gradient), 0, n / 3);
    adam_update(step, state.arrays(gradient), n / 3, n);
  }
  expect_near(state.weight, reference.weight, 2e-6);
  expect_near(state.m, reference.m, 1e-6);
  expect_near(state.v, reference.v, 2e-6, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(state.low[i].bits, base::BFloat16(state.weight[i]).bits);
    EXPECT_EQ(state.half[i].bits, base::Float16(state.weight[i]).bits);
  }
}

TEST(Adam, FollowsTorch) {
  for_each_isa([] {
    AdamStep step;
    for (int64_t n : {1, 15, 16, 100, 1000}) {
      compare(step, n);
    }
    step.weight_decay = 0.1;
    compare(step, 100);
    step.decoupled = true;
    compare(step, 100);
    step.grad_scale = 0.125f;
    step.beta1 = 0.3; // lerp_ takes its other branch
    compare(step, 100);
  });
}

TEST(Adam, DoesNotDependOnTheCuts) {
  for_each_isa([] {
    constexpr int64_t kCount = 333;
    AdamStep step;
    step.weight_decay = 0.01;
    step.grad_scale = 0.7f;
    const std::vector<float> gradient = random_array<float>(kCount, 9);
    State whole(kCount);
    State cut(kCount);
    adam_update(step, whole.arrays(gradient), 0, kCount);
    for (int64_t i = 0; i < kCount; i += 7) {
      adam_update(
          step, cut.arrays(gradient), i, std::min<int64_t>(i + 7, kCount));
    }
    expect_same_bits(whole.weight, cut.weight);
    expect_same_bits(whole.m, cut.m);
    expect_same_bits(whole.v, cut.v);
    expect_same_bits(whole.low, cut.low);
  });
}

TEST(Adam, WithoutLowPrecisionWeights) {
  for_each_isa([] {
    const std::vector<float> gradient = random_array<float>(20, 9);
    State a(20);
    State b(20);
    adam_update(AdamStep(), a.arrays(gradient), 0, 20);
    AdamArrays arrays = b.arrays(gradient);
    arrays.low_precision_weight = nullptr;
    adam_update(AdamStep(), arrays, 0, 20);
    expect_same_bits(a.weight, b.weight);
  });
}

TEST(SumOfSquares, IsExactToDoubleAndTheSameEverywhere) {
  const int64_t n = 3 * kSumBlock + 77;
  const std::vector<float> x = random_array<float>(n, 1, 1e10f);
  double expected = 0;
  for (float value : x) {
    expected += static_cast<double>(value) * value;
  }
  std::vector<double> sums;
  for_each_isa([&] {
    double in_blocks = 0;
    for (int64_t i = 0; i < n; i += kSumBlock) {
      in_blocks += sum_of_squares(x.data() + i, std::min(kSumBlock, n - i));
    }
    sums.push_back(sum_of_squares(x.data(), n));
    EXPECT_EQ(sums.back(), in_blocks);
    EXPECT_EQ(sums.back(), sums.front());
    EXPECT_NEAR(sums.back(), expected, 1e-13 * expected);
    EXPECT_EQ(sum_of_squares(x.data(), 0), 0.0);
    EXPECT_EQ(sum_of_squares(x.data(), 1), static_cast<double>(x[0]) * x[0]);
  });
}

TEST(AllFinite, FindsOneBadValueAnywhere) {
  for_each_isa([] {
    const int64_t n = kSumBlock + 21;
    std::vector<float> x(n, 3e38f);
    EXPECT_TRUE(all_finite(x.data(), n));
    EXPECT_TRUE(all_finite(x.data(), 0));
    for (int64_t at : {int64_t{0}, int64_t{17}, kSumBlock, n - 1}) {
      for (float bad : {INFINITY, -INFINITY, NAN}) {
        x[at] = bad;
        EXPECT_FALSE(all_finite(x.data(), n)) << at << " " << bad;
        x[at] = -3e38f;
      }
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
