// Cross-entropy against log-sum-exp in double.
#include "deepspeed/kernels/cross_entropy.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

template <typename T>
CrossEntropy<T> arguments(
    int64_t vocabulary,
    std::vector<T>& logits,
    const std::vector<int32_t>& labels,
    std::vector<float>& loss,
    std::vector<int32_t>& predicted) {
  CrossEntropy<T> args;
  args.vocabulary = vocabulary;
  args.stride = static_cast<int64_t>(logits.size() / labels.size());
  args.logits = logits.data();
  args.labels = labels.data();
  args.loss = loss.data();
  args.predicted = predicted.data();
  return args;
}

template <typename T>
void compare(int64_t rows, int64_t vocabulary, bool with_bias, float scale) {
  const int64_t stride = vocabulary + 3;
  const std::vector<T> original = random_array<T>(rows * stride, 1, scale);
  const std::vector<T> bias = random_array<T>(vocabulary, 2);
  std::vector<int32_t> labels(rows);
  for (int64_t r = 0; r < rows; ++r) {
    labels[r] = static_cast<int32_t>((r * 7919 + vocabulary - 1) % vocabulary);
  }
  std::vector<T> logits = original;
  std::vector<float> loss(rows);
  std::vector<int32_t> predicted(rows);
  CrossEntropy<T> args = arguments(vocabulary, logits, labels, loss, predicted);
  args.bias = with_bias ? bias.data() : nullptr;
  cross_entropy(args, 0, rows / 2);
  cross_entropy(args, rows / 2, rows);

  std::vector<double> expected = doubles(original);
  std::vector<double> expected_loss(rows);
  for (int64_t r = 0; r < rows; ++r) {
    double* row = expected.data() + r * stride;
    double max = -INFINITY;
    int32_t best = 0;
    for (int64_t c = 0; c < vocabulary; ++c) {
      const float b = with_bias ? static_cast<float>(bias[c]) : 0.0f;
      row[c] = static_cast<float>(original[r * stride + c]) + b;
      best = row[c] > max ? static_cast<int32_t>(c) : best;
      max = std::max(max, row[c]);
    }
    double sum = 0;
    for (int64_t c = 0; c < vocabulary; ++c) {
      sum += std::exp(row[c] - max);
    }
    expected_loss[r] = max + std::log(sum) - row[labels[r]];
    EXPECT_EQ(predicted[r], best);
  }
  expect_near(loss, expected_loss, 1e-6, 1.0);
}

TEST(CrossEntropy, MatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    for (int64_t vocabulary : {1, 5, 16, 63, 64, 1003}) {
      compare<T>(4, vocabulary, false, 1.0f);
      compare<T>(3, vocabulary, true, 20.0f);
    }
  });
}

TEST(CrossEntropy, HugeLogitsAreSafe) {
  for_each_isa([] {
    std::vector<float> logits = {1e30f, -1e30f, 0.0f, 3e38f, -3e38f};
    const std::vector<int32_t> labels = {3};
    std::vector<float> loss(1);
    std::vector<int32_t> predicted(1);
    cross_entropy(arguments(5, logits, labels, loss, predicted), 0, 1);
    EXPECT_EQ(loss[0], 0.0f);
    EXPECT_EQ(predicted[0], 3);
  });
}

TEST(CrossEntropy, SpecialValues) {
  for_each_isa([] {
    const std::vector<int32_t> labels = {1};
    std::vector<float> loss(1);
    std::vector<int32_t> predicted(1);
    std::vector<float> logits(100, 0.0f);
    logits[20] = -INFINITY;
    cross_entropy(arguments(100, logits, labels, loss, predicted), 0, 1);
    EXPECT_NEAR(loss[0], std::log(99.0), 1e-6);

    logits.assign(100, 0.0f);
    logits[97] = NAN;
    cross_entropy(arguments(100, logits, labels, loss, predicted), 0, 1);
    EXPECT_TRUE(std::isnan(loss[0]));
    EXPECT_EQ(predicted[0], 97);

    logits.assign(100, -INFINITY);
    cross_entropy(arguments(100, logits, labels, loss, predicted), 0, 1);
    EXPECT_TRUE(std::isnan(loss[0]));
    EXPECT_EQ(predicted[0], 0);
  });
}

} // namespace
} // namespace deepspeed::kernels
