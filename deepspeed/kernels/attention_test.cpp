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
    terms_of_out.resize(dout.size());
    terms_of_dqkv.resize(qkv.size());
  }

  void run() {
    forward(false);
    backward();
  }

  // In one order of sequences and heads, or in the opposite one.
  void forward(bool reverse) {
    AttentionForward<T> args;
    args.shape = shape;
    args.dropout = dropout;
    args.qkv = qkv.data();
    args.out = out.data();
    args.lse = lse.data();
    const auto calls = static_cast<int64_t>(sequences.size()) * shape.heads;
    for (int64_t i = 0; i < calls; ++i) {
      const int64_t call = reverse ? calls - 1 - i : i;
      attention_forward(
          args, sequences[call / shape.heads], call % shape.heads);
    }
  }

  void backward() {
    AttentionBackward<T> args;
    args.shape = shape;
    args.dropout = dropout;
    args.qkv = qkv.data();
    args.out = out.data();
    args.lse = lse.data();
    args.dout = dout.data();
    args.dqkv = dqkv.data();
    for (const Sequence& sequence : sequences) {
      for (int64_t head = shape.heads - 1; head >= 0; --head) {
        attention_backward(args, sequence, head);
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
    double terms_of_delta = 0;
    for (int64_t j = 0; j < s.length; ++j) {
      p[j] /= sum;
      const auto row = static_cast<uint32_t>(head << 16 | i);
      const double factor = dropout_factor(dropout, s.visit, row, j);
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t at = token * hidden + head * dim + c;
        const double g = static_cast<float>(dout[at]);
        const double v = qkv_at(s.first + j, 2, head, c);
        dp[j] += g * v * factor;
        expected_out[at] += p[j] * factor * v;
        terms_of_out[at] += p[j] * factor * std::abs(v);
        terms_of_delta += p[j] * factor * std::abs(g * v);
        add_gradient(index(s.first + j, 2, head, c), p[j] * factor, 0.0, g);
      }
      delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j < s.length; ++j) {
      const double ds = shape.scale * p[j] * (dp[j] - delta);
      const double delta_part = shape.scale * p[j] * terms_of_delta;
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t q = index(token, 0, head, c);
        const int64_t k = index(s.first + j, 1, head, c);
        add_gradient(q, ds, delta_part, static_cast<float>(qkv[k]));
        add_gradient(k, ds, delta_part, static_cast<float>(qkv[q]));
      }
    }
  }

  // `uncertain` is what stands in `a` but cancelled out.
  void add_gradient(int64_t at, double a, double uncertain, double b) {
    expected_dqkv[at] += a * b;
    terms_of_dqkv[at] += (std::abs(a) + uncertain) * std::abs(b);
  }

  AttentionShape shape;
  int64_t hidden;
  Dropout dropout;
  std::vector<Sequence> sequences;
  std::vector<T> qkv, dout, out, dqkv;
  std::vector<float> lse;
  std::vector<double> expected_out, expected_dqkv, expected_lse;
  // The sums of the absolute values of what is summed up in the expected ones.
  std::vector<double> terms_of_out, terms_of_dqkv;
};

// expect_near, where each of the terms that were summed up may be off by the
// part `rounding`.
template <typename T>
void expect_sum(
    const std::vector<T>& actual,
    const std::vector<double>& expected,
    const std::vector<double>& terms,
    double relative,
    double rounding) {
  ASSERT_EQ(actual.size(), expected.size());
  const double smallest = std::is_same_v<T, base::Float16> ? 0x1p-24 : 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double value = static_cast<float>(actual[i]);
    const double bound = relative + rounding * terms[i] + smallest +
        (relative + kRounding<T>)*std::abs(expected[i]);
    ASSERT_NEAR(value, expected[i], bound) << "element " << i;
  }
}

// The saved output, which stands in delta, is rounded to T. Where pairs of
// bfloat16 are multiplied, one factor of each term, a probability or a gradient
// of a score, is rounded, too.
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
  const bool pairs = std::is_same_v<T, base::BFloat16> && multiplies_bfloat16();
  expect_near(problem.lse, problem.expected_lse, 1e-6);
  expect_sum(
      problem.out,
      problem.expected_out,
      problem.terms_of_out,
      2e-6,
      pairs ? kRounding<T> : 0.0);
  expect_sum(
      problem.dqkv,
      problem.expected_dqkv,
      problem.terms_of_dqkv,
      8e-6,
      pairs ? 2 * kRounding<T> : kRounding<T>);
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

TEST(Attention, ManyShapes) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    for (const int64_t head_dim : {8, 20, 32, 64, 128}) {
      for (const float p : {0.0f, 0.1f}) {
        compare<T>({1, 17}, 2, head_dim, p);
      }
    }
    compare<T>({300}, 1, 20, 0.1f);
    compare<T>({75, 300}, 1, 64, 0.0f);
    compare<T>({1000}, 1, 8, 0.1f);
  });
}

TEST(Attention, DropsAllAndAlmostNothing) {
  for_each_isa_and_type([](auto type) {
    compare<decltype(type)>({40}, 1, 16, 1.0f);
    compare<decltype(type)>({40}, 1, 16, 0x1p-16f);
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

// Nor on what the scratch memory held, or on the order of the calls.
TEST(Attention, CallsAreIndependent) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    Problem<T> problem({20, 37, 1, 49}, 2, 20, 0.1f);
    problem.run();
    const std::vector<T> out = problem.out;
    const std::vector<T> dqkv = problem.dqkv;
    Problem<T> spoiled({90}, 1, 64, 0.1f);
    for (T& x : spoiled.qkv) {
      x = T(NAN);
    }
    spoiled.run();
    problem.forward(true);
    expect_same_bits(problem.out, out);
    spoiled.run();
    problem.backward();
    expect_same_bits(problem.dqkv, dqkv);
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

// Whether row i of out or of a part of dqkv is to be NaN, and all of it.
template <typename T, typename IsNaN>
void expect_nan_rows(const std::vector<T>& x, int64_t row, IsNaN&& is_nan) {
  for (size_t i = 0; i < x.size(); ++i) {
    const auto token = static_cast<int64_t>(i) / row;
    ASSERT_EQ(std::isnan(static_cast<float>(x[i])), is_nan(token)) << i;
  }
}

// A NaN in one query spoils its own row; in a key or value, the sequence. An
// odd sequence shares no pair of keys with what comes after it.
TEST(Attention, NaNGoesWhereItMust) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    Problem<T> problem({21, 20}, 1, 16, 0.1f);
    const auto first = [](int64_t token) { return token < 21; };
    const auto set = [&](int64_t part, int64_t token, float x) {
      problem.qkv[problem.index(token, part, 0, 5)] = T(x);
    };
    set(0, 3, NAN);
    problem.run();
    expect_nan_rows(problem.out, 16, [](int64_t i) { return i == 3; });
    expect_nan_rows(problem.dqkv, 16, [](int64_t i) {
      return i / 3 < 21 && (i % 3 > 0 || i / 3 == 3);
    });
    set(0, 3, 0.0f);
    set(1, 3, NAN);
    problem.run();
    expect_nan_rows(problem.out, 16, first);
    expect_nan_rows(problem.dqkv, 48, first);
    set(1, 3, 0.0f);
    set(2, 3, INFINITY);
    problem.run();
    for (int64_t i = 0; i < 41; ++i) {
      ASSERT_EQ(
          std::isfinite(static_cast<float>(problem.out[i * 16 + 5])), i >= 21);
      ASSERT_TRUE(std::isfinite(static_cast<float>(problem.out[i * 16])));
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
