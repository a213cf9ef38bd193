// Fused layer normalization against a plain one in double.
#include "deepspeed/kernels/layer_norm.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

constexpr double kEps = 1e-5;

struct Case {
  int64_t rows;
  int64_t hidden;
  float p;
  bool bias;
  bool residual;
};

constexpr Case kCases[] = {
    {1, 1, 0.0f, true, true},
    {3, 7, 0.1f, true, true},
    {5, 16, 0.5f, false, true},
    {9, 33, 0.1f, true, false},
    {23, 100, 0.0f, false, false},
    {130, 256, 0.1f, true, true},
    {2, 1000, 0.1f, true, true},
};

template <typename T>
struct Problem {
  explicit Problem(const Case& c)
      : hidden(c.hidden),
        tokens(c.rows),
        x(random_array<T>(c.rows * c.hidden, 1)),
        bias(random_array<T>(c.hidden, 2)),
        residual(random_array<T>(c.rows * c.hidden, 3, 2.0f)),
        gamma(random_array<T>(c.hidden, 4)),
        beta(random_array<T>(c.hidden, 5)),
        y(x.size()),
        normalized(x.size()),
        rstd(c.rows),
        factor(x.size()) {
    args.hidden = c.hidden;
    args.eps = static_cast<float>(kEps);
    args.x = x.data();
    args.bias = c.bias ? bias.data() : nullptr;
    args.residual = c.residual ? residual.data() : nullptr;
    args.gamma = gamma.data();
    args.beta = beta.data();
    args.dropout = make_dropout(c.p, 11, 3);
    args.tokens = tokens.keys();
    args.y = y.data();
    args.normalized = normalized.data();
    args.rstd = rstd.data();
    for (size_t i = 0; i < x.size(); ++i) {
      const auto row = i / hidden;
      factor[i] = dropout_factor(
          args.dropout, tokens.visit[row], tokens.position[row], i % hidden);
    }
  }

  int64_t hidden;
  TestTokens tokens;
  std::vector<T> x, bias, residual, gamma, beta, y, normalized;
  std::vector<float> rstd;
  std::vector<double> factor;
  LayerNormForward<T> args;
};

template <typename T>
void check_forward(const Case& c) {
  Problem<T> problem(c);
  layer_norm_forward(problem.args, 0, c.rows / 3);
  layer_norm_forward(problem.args, c.rows / 3, c.rows);
  std::vector<double> expected_y(problem.x.size());
  std::vector<double> expected_normalized(problem.x.size());
  std::vector<double> expected_rstd(c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    std::vector<double> z(c.hidden);
    double mean = 0;
    for (int64_t i = 0; i < c.hidden; ++i) {
      const int64_t at = r * c.hidden + i;
      z[i] = static_cast<float>(problem.x[at]);
      z[i] += c.bias ? static_cast<float>(problem.bias[i]) : 0.0f;
      z[i] *= problem.factor[at];
      z[i] += c.residual ? static_cast<float>(problem.residual[at]) : 0.0f;
      mean += z[i] / c.hidden;
    }
    double variance = 0;
    for (double value : z) {
      variance += (value - mean) * (value - mean) / c.hidden;
    }
    expected_rstd[r] = 1 / std::sqrt(variance + kEps);
    for (int64_t i = 0; i < c.hidden; ++i) {
      const int64_t at = r * c.hidden + i;
      expected_normalized[at] = (z[i] - mean) * expected_rstd[r];
      expected_y[at] =
          expected_normalized[at] * static_cast<float>(problem.gamma[i]) +
          static_cast<float>(problem.beta[i]);
    }
  }
  // A row of one has z - mean = 0 exactly; elsewhere rstd is of order one.
  expect_near(problem.rstd, expected_rstd, 1e-6, 0.0);
  expect_near(problem.normalized, expected_normalized, 1e-6);
  expect_near(problem.y, expected_y, 2e-6);
}

TEST(LayerNorm, ForwardMatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    for (const Case& c : kCases) {
      check_forward<decltype(type)>(c);
    }
  });
}

// With the saved normalized rows as the exact input of the backward pass.
template <typename T>
void check_backward(const Case& c) {
  Problem<T> problem(c);
  layer_norm_forward(problem.args, 0, c.rows);
  const std::vector<T> dy = random_array<T>(problem.x.size(), 6);
  std::vector<T> dresidual(dy.size());
  std::vector<T> dx(dy.size());
  LayerNormBackward<T> args;
  args.hidden = c.hidden;
  args.dy = dy.data();
  args.normalized = problem.normalized.data();
  args.rstd = problem.rstd.data();
  args.gamma = problem.gamma.data();
  args.dropout = problem.args.dropout;
  args.tokens = problem.args.tokens;
  args.dresidual = dresidual.data();
  args.dx = dx.data();
  layer_norm_backward(args, 0, c.rows / 2);
  layer_norm_backward(args, c.rows / 2, c.rows);

  std::vector<double> expected(dy.size());
  std::vector<double> expected_dx(dy.size());
  double largest = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    double mean = 0;
    double product_mean = 0;
    for (int64_t i = 0; i < c.hidden; ++i) {
      const int64_t at = r * c.hidden + i;
      const double g = static_cast<double>(static_cast<float>(dy[at])) *
          static_cast<float>(problem.gamma[i]);
      mean += g / c.hidden;
      product_mean += g * static_cast<float>(problem.normalized[at]) / c.hidden;
    }
    for (int64_t i = 0; i < c.hidden; ++i) {
      const int64_t at = r * c.hidden + i;
      const double g = static_cast<double>(static_cast<float>(dy[at])) *
          static_cast<float>(problem.gamma[i]);
      expected[at] = problem.rstd[r] *
          (g - mean -
           static_cast<float>(problem.normalized[at]) * product_mean);
      expected_dx[at] = expected[at] * problem.factor[at];
      largest = std::max(largest, std::abs(expected[at]));
    }
  }
  expect_near(dresidual, expected, 1e-6, std::max(1.0, largest));
  expect_near(dx, expected_dx, 1e-6, std::max(1.0, largest));

  // In place, where allowed.
  std::vector<T> in_place = dy;
  args.dy = in_place.data();
  args.dresidual = in_place.data();
  layer_norm_backward(args, 0, c.rows);
  expect_same_bits(in_place, dresidual);
}

TEST(LayerNorm, BackwardMatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    for (const Case& c : kCases) {
      if (c.hidden > 1) {
        check_backward<decltype(type)>(c);
      }
    }
  });
}

template <typename T>
void check_parameters(int64_t rows, int64_t hidden) {
  const std::vector<T> dy = random_array<T>(rows * hidden, 1);
  const std::vector<T> normalized = random_array<T>(rows * hidden, 2);
  std::vector<float> dgamma(hidden, 5.0f);
  std::vector<float> dbeta(hidden, -3.0f);
  std::vector<double> expected_dgamma(hidden, 5.0);
  std::vector<double> expected_dbeta(hidden, -3.0);
  for (int64_t i = 0; i < rows * hidden; ++i) {
    const double d = static_cast<float>(dy[i]);
    expected_dgamma[i % hidden] += d * static_cast<float>(normalized[i]);
    expected_dbeta[i % hidden] += d;
  }
  LayerNormParameterGradients<T> args;
  args.rows = rows;
  args.hidden = hidden;
  args.dy = dy.data();
  args.normalized = normalized.data();
  args.accumulate = true;
  args.dgamma = dgamma.data();
  args.dbeta = dbeta.data();
  layer_norm_backward_params(args, 0, hidden / 3);
  layer_norm_backward_params(args, hidden / 3, hidden);
  const double magnitude = static_cast<double>(rows);
  expect_near(dgamma, expected_dgamma, 1e-6, magnitude);
  expect_near(dbeta, expected_dbeta, 1e-6, magnitude);

  // Without accumulation, and cut nowhere: same bits as the difference says.
  std::vector<float> whole_gamma(hidden, NAN);
  std::vector<float> whole_beta(hidden, NAN);
  std::vector<float> cut_gamma(hidden, NAN);
  std::vector<float> cut_beta(hidden, NAN);
  args.accumulate = false;
  args.dgamma = whole_gamma.data();
  args.dbeta = whole_beta.data();
  layer_norm_backward_params(args, 0, hidden);
  args.dgamma = cut_gamma.data();
  args.dbeta = cut_beta.data();
  for (int64_t c = 0; c < hidden; c += 5) {
    layer_norm_backward_params(args, c, std::min(c + 5, hidden));
  }
  expect_same_bits(whole_gamma, cut_gamma);
  expect_same_bits(whole_beta, cut_beta);
}

TEST(LayerNorm, ParameterGradientsMatchTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    check_parameters<T>(1, 1);
    check_parameters<T>(63, 17);
    check_parameters<T>(64, 64);
    check_parameters<T>(200, 100);
    check_parameters<T>(801, 256);
  });
}

// Large offsets: the variance must not come from E[x^2] - E[x]^2.
TEST(LayerNorm, DoesNotCancel) {
  for_each_isa([] {
    constexpr int64_t kHidden = 64;
    std::vector<float> x(kHidden);
    for (int64_t i = 0; i < kHidden; ++i) {
      x[i] = 4096.0f + static_cast<float>(i % 2);
    }
    const std::vector<float> ones(kHidden, 1.0f);
    const std::vector<float> zeros(kHidden, 0.0f);
    std::vector<float> y(kHidden);
    LayerNormForward<float> args;
    args.hidden = kHidden;
    args.x = x.data();
    args.gamma = ones.data();
    args.beta = zeros.data();
    args.y = y.data();
    layer_norm_forward(args, 0, 1);
    EXPECT_NEAR(y[0], -0.99998, 1e-5);
    EXPECT_NEAR(y[1], 0.99998, 1e-5);
  });
}

TEST(LayerNorm, NaNStaysInItsRow) {
  for_each_isa([] {
    Problem<float> problem({3, 40, 0.0f, true, true});
    problem.x[45] = NAN;
    layer_norm_forward(problem.args, 0, 3);
    for (int64_t i = 0; i < 120; ++i) {
      EXPECT_EQ(std::isnan(problem.y[i]), i / 40 == 1) << i;
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
