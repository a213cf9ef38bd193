// Softmax in blocks against the definition in double.
#include "deepspeed/kernels/softmax_block.h"

#include <algorithm>
#include <limits>

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits in blocks of `step` words, and what the kernels make of them.
template <typename T>
struct Problem {
  Problem(int64_t words, int64_t columns, int64_t step, float scale)
      : words(words),
        columns(columns),
        step(step),
        stride(
            (columns + kSoftmaxColumns - 1) / kSoftmaxColumns *
            kSoftmaxColumns),
        blocks((words + step - 1) / step),
        logits(random_array<float>(words * stride, 1, scale)),
        bias(random_array<T>(words, 2)),
        exponentials(words * stride, T(7.0f)),
        factors(blocks * stride),
        sums(blocks * stride),
        max(stride),
        log_sum(stride) {}

  void run() {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * step;
      SoftmaxBlock<T> args;
      args.rows = std::min(step, words - first);
      args.columns = columns;
      args.stride = stride;
      args.logits = logits.data() + first * stride;
      args.bias = bias.data() + first;
      args.factor = factor;
      args.exponentials = exponentials.data() + first * stride;
      args.max = factors.data() + block * stride;
      args.sum = sums.data() + block * stride;
      softmax_block(args);
    }
    softmax_factors(
        blocks,
        stride,
        factors.data(),
        sums.data(),
        {max.data(), log_sum.data()});
  }

  double logit(int64_t word, int64_t column) const {
    return static_cast<double>(logits[word * stride + column]) +
        static_cast<float>(bias[word]);
  }
  double probability(int64_t word, int64_t column) const {
    return static_cast<double>(
               static_cast<float>(exponentials[word * stride + column])) *
        factors[word / step * stride + column] / factor;
  }

  int64_t words, columns, step, stride, blocks;
  float factor = 1.0f;
  std::vector<float> logits;
  std::vector<T> bias, exponentials;
  std::vector<float> factors, sums, max, log_sum;
};

template <typename T>
void expect_probabilities(const Problem<T>& problem, double relative) {
  // Subnormal numbers of fp16 are multiples of 2^-24.
  const double smallest =
      std::is_same_v<T, base::Float16> ? 0x1p-24 / problem.factor : 1e-30;
  for (int64_t c = 0; c < problem.columns; ++c) {
    double max = -INFINITY;
    for (int64_t word = 0; word < problem.words; ++word) {
      max = std::max(max, problem.logit(word, c));
    }
    double sum = 0;
    for (int64_t word = 0; word < problem.words; ++word) {
      sum += std::exp(problem.logit(word, c) - max);
    }
    ASSERT_NEAR(
        problem.max[c] + problem.log_sum[c],
        max + std::log(sum),
        1e-6 * (1 + std::abs(max)));
    for (int64_t word = 0; word < problem.words; ++word) {
      const double p = std::exp(problem.logit(word, c) - max) / sum;
      ASSERT_NEAR(problem.probability(word, c), p, relative * p + smallest)
          << word << " " << c;
    }
  }
}

TEST(SoftmaxBlock, MatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    for (const int64_t columns : {1, 31, 32, 70}) {
      for (const float scale : {1.0f, 3.0f}) {
        Problem<T> problem(100, columns, 48, scale);
        problem.factor = std::is_same_v<T, base::Float16> ? 32768.0f : 1.0f;
        problem.run();
        expect_probabilities(problem, 1e-5 + kRounding<T>);
        for (int64_t word = 0; word < problem.words; ++word) {
          for (int64_t c = columns; c < problem.stride; ++c) {
            ASSERT_EQ(
                static_cast<float>(
                    problem.exponentials[word * problem.stride + c]),
                0.0f);
          }
        }
      }
    }
  });
}

// Without the factor, e^-11 would keep 8 bits in fp16 and e^-17 none.
TEST(SoftmaxBlock, TheFactorKeepsSmallProbabilitiesInFp16) {
  for_each_isa([] {
    Problem<base::Float16> problem(64, 3, 64, 0.0f);
    for (int64_t word = 1; word < 64; ++word) {
      problem.logits[word * problem.stride] = word % 2 == 0 ? -11.0f : -17.0f;
    }
    problem.factor = 32768.0f;
    problem.run();
    expect_probabilities(problem, 2e-3);
    // The smallest are subnormal, but there.
    EXPECT_GT(problem.probability(1, 0), 0.0);
  });
}

TEST(SoftmaxBlock, HugeLogitsAreSafe) {
  for_each_isa([] {
    Problem<float> problem(5, 1, 2, 0.0f);
    std::fill(problem.bias.begin(), problem.bias.end(), 0.0f);
    const float logits[] = {1e30f, -1e30f, 0.0f, 3e38f, -3e38f};
    for (int64_t word = 0; word < 5; ++word) {
      problem.logits[word * problem.stride] = logits[word];
    }
    problem.run();
    EXPECT_EQ(problem.max[0], 3e38f);
    EXPECT_EQ(problem.log_sum[0], 0.0f);
    for (int64_t word = 0; word < 5; ++word) {
      EXPECT_EQ(problem.probability(word, 0), word == 3 ? 1.0 : 0.0) << word;
    }
  });
}

TEST(SoftmaxBlock, SpecialValues) {
  for_each_isa([] {
    // A block of nothing but -infinity beside one of zeros; a NaN; infinity;
    // nothing but -infinity. Their neighbours do not notice.
    Problem<float> problem(64, 5, 32, 0.0f);
    std::fill(problem.bias.begin(), problem.bias.end(), 0.0f);
    for (int64_t word = 0; word < 64; ++word) {
      float* const row = problem.logits.data() + word * problem.stride;
      row[0] = word < 32 ? -kInfinity : 0.0f;
      row[1] = word == 40 ? NAN : 0.0f;
      row[2] = word == 9 ? kInfinity : 0.0f;
      row[3] = -kInfinity;
    }
    problem.run();
    const auto loss = [&](int64_t c) {
      return problem.log_sum[c] +
          (problem.max[c] - problem.logits[50 * 32 + c]);
    };
    EXPECT_NEAR(loss(0), std::log(32.0), 1e-6);
    EXPECT_EQ(problem.probability(3, 0), 0.0);
    EXPECT_NEAR(problem.probability(33, 0), 1.0 / 32, 1e-7);
    for (const int64_t c : {1, 2, 3}) {
      EXPECT_TRUE(std::isnan(loss(c))) << c;
    }
    EXPECT_TRUE(std::isnan(problem.probability(50, 1)));
    EXPECT_TRUE(std::isnan(problem.probability(9, 2)));
    EXPECT_NEAR(loss(4), std::log(64.0), 1e-6);
    EXPECT_NEAR(problem.probability(7, 4), 1.0 / 64, 1e-7);
  });
}

TEST(SoftmaxBlock, WeightedRowSums) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    constexpr int64_t kRows = 7;
    constexpr int64_t kStride = 96;
    const auto x = random_array<T>(kRows * kStride, 1);
    const auto weights = random_array<float>(kStride, 2);
    std::vector<double> expected(kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kStride; ++c) {
        expected[r] +=
            0.5 * weights[c] * static_cast<float>(x[r * kStride + c]);
      }
    }
    std::vector<float> sums(kRows, 3.0f);
    for (const bool add : {false, true}) {
      weighted_row_sums(
          x.data(), kRows, kStride, weights.data(), 0.5f, add, sums.data());
      expect_near(sums, expected, 1e-5, 10.0);
      for (double& sum : expected) {
        sum *= 2;
      }
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
