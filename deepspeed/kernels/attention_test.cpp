// Attention against plain loops in double, both ways.
#include "deepspeed/kernels/attention.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

// A packed batch with its results, and the same in double.
template <typename T>
struct Problem {
  Problem(
      const std::vector<int64_t>& lengths,
      int64_t heads,
      int64_t head_dim,
      float p)
      : hidden(heads * head_dim), dropout(make_dropout(p, 21, 4)) {
    for (const int64_t length : lengths) {
      sequences.push_back({shape.tokens, length, 1000 + sequences.size()});
      shape.tokens += length;
    }
    shape.heads = heads;
    shape.head_dim = head_dim;
    shape.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    qkv = random_array<T>(shape.tokens * 3 * hidden, 1);
    dout = random_array<T>(shape.tokens * hidden, 2);
    out.resize(dout.size());
    dqkv.resize(qkv.size());
    lse.resize(heads * shape.tokens);
    expected_out.resize(dout.size());
    expected_dqkv.resize(qkv.size());
    expected_lse.resize(lse.size());
  }

  void run() {
    AttentionForward<T> forward;
    forward.shape = shape;
    forward.dropout = dropout;
    forward.qkv = qkv.data();
    forward.out = out.data();
    forward.lse = lse.data();
    AttentionBackward<T> backward;
    backward.shape = shape;
    backward.dropout = dropout;
    backward.qkv = qkv.data();
    backward.out = out.data();
    backward.lse = lse.data();
    backward.dout = dout.data();
    backward.dqkv = dqkv.data();
    for (const Sequence& sequence : sequences) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        attention_forward(forward, sequence, head);
      }
    }
    for (const Sequence& sequence : sequences) {
      for (int64_t head = shape.heads - 1; head >= 0; --head) {
        attention_backward(backward, sequence, head);
      }
    }
  }

  double qkv_at(int64_t token, int64_t part, int64_t head, int64_t c) const {
    return static_cast<float>(qkv[index(token, part, head, c)]);
  }
  int64_t index(int64_t token, int64_t part, int64_t head, int64_t c) const {
    return (token * 3 + part) * hidden + head * shape.head_dim + c;
  }

  void reference() {
    for (const Sequence& sequence : sequences) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        for (int64_t i = 0; i < sequence.length; ++i) {
          reference_query(sequence, head, i);
        }
      }
    }
  }

  // The output of one query, and what it adds to the gradients.
  void reference_query(const Sequence& s, int64_t head, int64_t i) {
    const int64_t dim = shape.head_dim;
    const int64_t token = s.first + i;
    std::vector<double> p(s.length);
    double max = -INFINITY;
    for (int64_t j = 0; j < s.length; ++j) {
      for (int64_t c = 0; c < dim; ++c) {
        p[j] += shape.scale * qkv_at(token, 0, head, c) *
            qkv_at(s.first + j, 1, head, c);
      }
      max = std::max(max, p[j]);
    }
    double sum = 0;
    for (double& value : p) {
      value = std::exp(value - max);
      sum += value;
    }
    expected_lse[head * shape.tokens + token] = max + std::log(sum);
    std::vector<double> dp(s.length);
    double delta = 0;
    for (int64_t j = 0; j < s.length; ++j) {
      p[j] /= sum;
      const auto row = static_cast<uint32_t>(head << 16 | i);
      const double factor = dropout_factor(dropout, s.visit, row, j);
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t at = token * hidden + head * dim + c;
        const double g = static_cast<float>(dout[at]);
        const double v = qkv_at(s.first + j, 2, head, c);
        expected_out[at] += p[j] * factor * v;
        dp[j] += g * v * factor;
        expected_dqkv[index(s.first + j, 2, head, c)] += p[j] * factor * g;
      }
      delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j < s.length; ++j) {
      const double ds = shape.scale * p[j] * (dp[j] - delta);
      for (int64_t c = 0; c < dim; ++c) {
        expected_dqkv[index(token, 0, head, c)] +=
            ds * qkv_at(s.first + j, 1, head, c);
        expected_dqkv[index(s.first + j, 1, head, c)] +=
            ds * qkv_at(token, 0, head, c);
      }
    }
  }

  AttentionShape shape;
  int64_t hidden;
  Dropout dropout;
  std::vector<Sequence> sequences;
  std::vector<T> qkv, dout, out, dqkv;
  std::vector<float> lse;
  std::vector<double> expected_out, expected_dqkv, expected_lse;
};

// In bfloat16 the saved output, which stands in delta, is rounded: relative
// 2^-9 of |dout||out|, hence the wider bound of the gradients.
template <typename T>
void compare(
    const std::vector<int64_t>& lengths,
    int64_t heads,
    int64_t head_dim,
    float p) {
  SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << " p " << p);
  Problem<T> problem(lengths, heads, head_dim, p);
  problem.run();
  problem.reference();
  const bool exact = std::is_same_v<T, float>;
  expect_near(problem.lse, problem.expected_lse, 1e-6);
  expect_near(problem.out, problem.expected_out, 2e-6);
  expect_near(problem.dqkv, problem.expected_dqkv, exact ? 4e-6 : 4e-3, 2.0);
}

TEST(Attention, MatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    compare<T>({1}, 1, 8, 0.0f);
    compare<T>({1, 2, 3}, 2, 8, 0.1f);
    compare<T>({15, 16, 17}, 2, 16, 0.0f);
    compare<T>({31, 5, 33}, 3, 32, 0.1f);
    compare<T>({64}, 1, 80, 0.1f);
    compare<T>({40}, 2, 5, 0.5f);
    compare<T>({70, 1}, 1, 128, 0.1f);
    compare<T>({130}, 1, 64, 0.0f);
  });
}

TEST(Attention, LongestSequence) {
  for_each_isa_and_type(
      [](auto type) { compare<decltype(type)>({512}, 1, 32, 0.1f); });
}

// The result of a sequence does not depend on what else is in the batch.
TEST(Attention, SequencesAreIndependent) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    Problem<T> together({20, 37}, 2, 16, 0.1f);
    together.run();
    Problem<T> alone({20}, 2, 16, 0.1f);
    std::copy_n(together.qkv.begin(), alone.qkv.size(), alone.qkv.begin());
    std::copy_n(together.dout.begin(), alone.dout.size(), alone.dout.begin());
    alone.run();
    together.out.resize(alone.out.size());
    together.dqkv.resize(alone.dqkv.size());
    expect_same_bits(together.out, alone.out);
    expect_same_bits(together.dqkv, alone.dqkv);
  });
}

TEST(Attention, WithoutLogSumExp) {
  for_each_isa([] {
    Problem<float> problem({20}, 1, 16, 0.0f);
    problem.run();
    AttentionForward<float> forward;
    forward.shape = problem.shape;
    forward.qkv = problem.qkv.data();
    std::vector<float> out(problem.out.size());
    forward.out = out.data();
    attention_forward(forward, problem.sequences[0], 0);
    expect_same_bits(out, problem.out);
  });
}

TEST(Attention, LargeScoresAreSafe) {
  for_each_isa([] {
    Problem<float> problem({20}, 1, 16, 0.0f);
    for (float& x : problem.qkv) {
      x *= 1000.0f;
    }
    problem.run();
    for (size_t i = 0; i < problem.dqkv.size(); ++i) {
      ASSERT_TRUE(std::isfinite(problem.dqkv[i])) << i;
    }
  });
}

// A NaN in one query spoils its own row; in a key or value, the sequence.
TEST(Attention, NaNGoesWhereItMust) {
  for_each_isa([] {
    Problem<float> problem({20, 20}, 1, 16, 0.1f);
    problem.qkv[problem.index(3, 0, 0, 5)] = NAN;
    problem.run();
    for (int64_t i = 0; i < 40 * 16; ++i) {
      ASSERT_EQ(std::isnan(problem.out[i]), i / 16 == 3) << i;
    }
    problem.qkv[problem.index(3, 0, 0, 5)] = 0.0f;
    problem.qkv[problem.index(3, 1, 0, 5)] = NAN;
    problem.run();
    for (int64_t i = 0; i < 40 * 16; ++i) {
      ASSERT_EQ(std::isnan(problem.out[i]), i / 16 < 20) << i;
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
