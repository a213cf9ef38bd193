// GELU against std::erfc in double.
#include "deepspeed/kernels/gelu.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

double normal_cdf(double u) {
  return 0.5 * std::erfc(-u / std::sqrt(2.0));
}

double normal_density(double u) {
  return std::exp(-0.5 * u * u) / std::sqrt(2 * M_PI);
}

template <typename T>
void compare(int64_t rows, int64_t columns, bool with_bias, float scale) {
  const std::vector<T> x = random_array<T>(rows * columns, 1, scale);
  const std::vector<T> bias = random_array<T>(columns, 2);
  std::vector<T> y(x.size());
  std::vector<T> derivative(x.size());
  BiasGelu<T> args;
  args.columns = columns;
  args.x = x.data();
  args.bias = with_bias ? bias.data() : nullptr;
  args.y = y.data();
  args.derivative = derivative.data();
  bias_gelu_forward(args, 0, rows / 2);
  bias_gelu_forward(args, rows / 2, rows);
  std::vector<double> expected_y = doubles(x);
  std::vector<double> expected_derivative = doubles(x);
  for (int64_t i = 0; i < rows * columns; ++i) {
    float u = static_cast<float>(x[i]);
    u += with_bias ? static_cast<float>(bias[i % columns]) : 0.0f;
    expected_y[i] = u * normal_cdf(u);
    expected_derivative[i] = normal_cdf(u) + u * normal_density(u);
  }
  expect_near(y, expected_y, 3e-7, 0.1);
  expect_near(derivative, expected_derivative, 3e-7, 0.5);

  const std::vector<T> dy = random_array<T>(rows * columns, 3);
  std::vector<T> dx = dy;
  gelu_backward(columns, dx.data(), derivative.data(), dx.data(), 0, 1);
  gelu_backward(columns, dx.data(), derivative.data(), dx.data(), 1, rows);
  std::vector<double> expected_dx = doubles(dy);
  for (size_t i = 0; i < expected_dx.size(); ++i) {
    expected_dx[i] *= static_cast<float>(derivative[i]);
  }
  expect_near(dx, expected_dx, 1e-7, 0.0);
}

TEST(Gelu, MatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    for (int64_t columns : {1, 15, 16, 17, 40, 512}) {
      compare<T>(5, columns, true, 1.0f);
      compare<T>(5, columns, false, 3.0f);
    }
  });
}

// Every float of a fine grid: absolute error of Phi, read off the derivative
// and y / u, stays below 2e-7.
TEST(Gelu, IsAccurateEverywhere) {
  for_each_isa([] {
    std::vector<float> x;
    for (float u = -16.0f; u <= 16.0f; u += 0.000731f) {
      x.push_back(u);
    }
    const auto n = static_cast<int64_t>(x.size());
    std::vector<float> y(n);
    std::vector<float> derivative(n);
    BiasGelu<float> args;
    args.columns = n;
    args.x = x.data();
    args.y = y.data();
    args.derivative = derivative.data();
    bias_gelu_forward(args, 0, 1);
    double worst_phi = 0;
    double worst_derivative = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double u = x[i];
      worst_phi = std::max(worst_phi, std::abs(y[i] / u - normal_cdf(u)));
      worst_derivative = std::max(
          worst_derivative,
          std::abs(derivative[i] - normal_cdf(u) - u * normal_density(u)));
    }
    EXPECT_LT(worst_phi, 2e-7);
    EXPECT_LT(worst_derivative, 2e-7);
    RecordProperty("worst_phi", std::to_string(worst_phi * 1e7));
  });
}

TEST(Gelu, SpecialValuesAreThoseOfPyTorch) {
  for_each_isa([] {
    const std::vector<float> x = {
        0.0f, 100.0f, -100.0f, INFINITY, -INFINITY, NAN};
    std::vector<float> y(x.size());
    std::vector<float> derivative(x.size());
    BiasGelu<float> args;
    args.columns = static_cast<int64_t>(x.size());
    args.x = x.data();
    args.y = y.data();
    args.derivative = derivative.data();
    bias_gelu_forward(args, 0, 1);
    EXPECT_EQ(y[0], 0.0f);
    EXPECT_NEAR(derivative[0], 0.5, 1e-7);
    EXPECT_EQ(y[1], 100.0f);
    EXPECT_EQ(derivative[1], 1.0f);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_EQ(derivative[2], 0.0f);
    EXPECT_EQ(y[3], INFINITY);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_TRUE(std::isnan(y[5]));
    EXPECT_TRUE(std::isnan(derivative[5]));
  });
}

TEST(Gelu, WithoutDerivative) {
  for_each_isa([] {
    std::vector<float> x = random_array<float>(37, 1);
    std::vector<float> y(37);
    BiasGelu<float> args;
    args.columns = 37;
    args.x = x.data();
    args.y = y.data();
    bias_gelu_forward(args, 0, 1);
    args.y = x.data();
    bias_gelu_forward(args, 0, 1);
    expect_same_bits(x, y);
  });
}

} // namespace
} // namespace deepspeed::kernels
