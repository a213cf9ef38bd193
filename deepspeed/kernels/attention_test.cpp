// Attention against plain loops in double, both ways.
#include "deepspeed/kernels/attention.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

// Numbers with the sums that are expected of them, and the sums of the absolute
// values of what is summed up.
template <typename T>
struct Sums {
  void resize(int64_t size) {
    actual.resize(size);
    expected.resize(size);
    terms.resize(size);
  }
  // `uncertain` is what stands in `a` but cancelled out.
  void add(int64_t at, double a, double uncertain, double b) {
    expected[at] += a * b;
    terms[at] += (std::abs(a) + uncertain) * std::abs(b);
  }

  std::vector<T> actual;
  std::vector<double> expected, terms;
};

// A packed batch with its results, and the same in double. Of each sequence
// every `step`th token is a query.
template <typename T>
struct Problem {
  Problem(
      const std::vector<int64_t>& lengths,
      int64_t heads,
      int64_t head_dim,
      float p,
      int64_t step = 1)
      : hidden(heads * head_dim), dropout(make_dropout(p, 21, 4)) {
    for (const int64_t length : lengths) {
      add_sequence(length, step);
    }
    shape.heads = heads;
    shape.head_dim = head_dim;
    shape.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    q = random_array<T>(shape.queries * hidden, 3);
    kv = random_array<T>(tokens * 2 * hidden, 1);
    dout = random_array<T>(q.size(), 2);
    out.resize(q.size());
    dq.resize(q.size());
    dkv.resize(kv.size());
    lse.resize(heads * shape.queries);
    expected_lse.resize(lse.size());
  }

  // A step beyond the length leaves it without queries.
  void add_sequence(int64_t length, int64_t step) {
    Sequence sequence{tokens, length, 1000 + sequences.size(), shape.queries};
    for (int64_t i = step - 1; i < length; i += step) {
      positions.push_back(static_cast<uint32_t>(i));
      ++sequence.queries;
    }
    sequences.push_back(sequence);
    tokens += length;
    shape.queries += sequence.queries;
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
    args.positions = positions.data();
    args.q = q.data();
    args.kv = kv.data();
    args.out = out.actual.data();
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
    args.positions = positions.data();
    args.q = q.data();
    args.kv = kv.data();
    args.out = out.actual.data();
    args.lse = lse.data();
    args.dout = dout.data();
    args.dq = dq.actual.data();
    args.dkv = dkv.actual.data();
    for (const Sequence& sequence : sequences) {
      for (int64_t head = shape.heads - 1; head >= 0; --head) {
        attention_backward(args, sequence, head);
      }
    }
  }

  // Of number c of a head: in q, out and their gradients, and in keys (part 0)
  // or values (part 1) and theirs.
  int64_t query_index(int64_t query, int64_t head, int64_t c) const {
    return query * hidden + head * shape.head_dim + c;
  }
  int64_t index(int64_t token, int64_t part, int64_t head, int64_t c) const {
    return (token * 2 + part) * hidden + head * shape.head_dim + c;
  }

  void reference() {
    for (const Sequence& sequence : sequences) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        for (int64_t i = 0; i < sequence.queries; ++i) {
          reference_query(sequence, head, sequence.first_query + i);
        }
      }
    }
  }

  // The output of one query, and what it adds to the gradients.
  void reference_query(const Sequence& s, int64_t head, int64_t query) {
    const int64_t dim = shape.head_dim;
    const auto number = [](T x) { return double{static_cast<float>(x)}; };
    std::vector<double> p(s.length);
    double max = -INFINITY;
    for (int64_t j = 0; j < s.length; ++j) {
      for (int64_t c = 0; c < dim; ++c) {
        p[j] += shape.scale * number(q[query_index(query, head, c)]) *
            number(kv[index(s.first + j, 0, head, c)]);
      }
      max = std::max(max, p[j]);
    }
    double sum = 0;
    for (double& value : p) {
      value = std::exp(value - max);
      sum += value;
    }
    expected_lse[head * shape.queries + query] = max + std::log(sum);
    std::vector<double> dp(s.length);
    double delta = 0;
    double terms_of_delta = 0;
    for (int64_t j = 0; j < s.length; ++j) {
      p[j] /= sum;
      const auto row = static_cast<uint32_t>(head << 16 | positions[query]);
      const double factor = dropout_factor(dropout, s.visit, row, j);
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t at = query_index(query, head, c);
        const int64_t value = index(s.first + j, 1, head, c);
        const double g = number(dout[at]);
        const double v = number(kv[value]);
        dp[j] += g * v * factor;
        out.add(at, p[j] * factor, 0.0, v);
        terms_of_delta += p[j] * factor * std::abs(g * v);
        dkv.add(value, p[j] * factor, 0.0, g);
      }
      delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j < s.length; ++j) {
      const double ds = shape.scale * p[j] * (dp[j] - delta);
      const double delta_part = shape.scale * p[j] * terms_of_delta;
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t at = query_index(query, head, c);
        const int64_t key = index(s.first + j, 0, head, c);
        dq.add(at, ds, delta_part, number(kv[key]));
        dkv.add(key, ds, delta_part, number(q[at]));
      }
    }
  }

  AttentionShape shape;
  int64_t tokens = 0;
  int64_t hidden;
  Dropout dropout;
  std::vector<Sequence> sequences;
  std::vector<uint32_t> positions;
  std::vector<T> q, kv, dout;
  Sums<T> out, dq, dkv;
  std::vector<float> lse;
  std::vector<double> expected_lse;
};

// expect_near, where each of the terms that were summed up may be off by the
// part `rounding`.
template <typename T>
void expect_sums(const Sums<T>& sums, double relative, double rounding) {
  const double smallest = std::is_same_v<T, base::Float16> ? 0x1p-24 : 0.0;
  for (size_t i = 0; i < sums.actual.size(); ++i) {
    const double value = static_cast<float>(sums.actual[i]);
    const double bound = relative + rounding * sums.terms[i] + smallest +
        (relative + kRounding<T>)*std::abs(sums.expected[i]);
    ASSERT_NEAR(value, sums.expected[i], bound) << "element " << i;
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
    float p,
    int64_t step = 1) {
  SCOPED_TRACE(
      testing::Message() << "head_dim " << head_dim << " p " << p << " step "
                         << step);
  Problem<T> problem(lengths, heads, head_dim, p, step);
  problem.run();
  problem.reference();
  const bool pairs = std::is_same_v<T, base::BFloat16> && multiplies_bfloat16();
  const double rounding = pairs ? 2 * kRounding<T> : kRounding<T>;
  expect_near(problem.lse, problem.expected_lse, 1e-6);
  expect_sums(problem.out, 2e-6, pairs ? kRounding<T> : 0.0);
  expect_sums(problem.dq, 8e-6, rounding);
  expect_sums(problem.dkv, 8e-6, rounding);
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

TEST(Attention, SomeTokensAreQueries) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    compare<T>({7, 40, 3, 1, 150}, 2, 32, 0.1f, 5);
    compare<T>({300}, 1, 16, 0.1f, 2);
    compare<T>({20, 20}, 1, 64, 0.0f, 20);
    compare<T>({20, 33}, 1, 16, 0.1f, 100);
  });
}

// What a query gets does not depend on the other queries.
TEST(Attention, QueriesAreIndependent) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    constexpr int64_t kStep = 3;
    Problem<T> all({20, 137}, 2, 16, 0.1f);
    Problem<T> some({20, 137}, 2, 16, 0.1f, kStep);
    all.kv = some.kv;
    std::vector<T> expected;
    for (const Sequence& sequence : some.sequences) {
      for (int64_t i = 0; i < sequence.queries; ++i) {
        const int64_t from = (sequence.first_query + i) * all.hidden;
        const int64_t to =
            (sequence.first + kStep * i + kStep - 1) * all.hidden;
        std::copy_n(some.q.data() + from, all.hidden, all.q.data() + to);
      }
    }
    all.forward(false);
    some.forward(false);
    for (const Sequence& sequence : some.sequences) {
      for (int64_t i = kStep - 1; i < sequence.length; i += kStep) {
        const auto row =
            all.out.actual.begin() + (sequence.first + i) * all.hidden;
        expected.insert(expected.end(), row, row + all.hidden);
      }
    }
    expect_same_bits(some.out.actual, expected);
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
    std::copy_n(together.q.begin(), alone.q.size(), alone.q.begin());
    std::copy_n(together.kv.begin(), alone.kv.size(), alone.kv.begin());
    std::copy_n(together.dout.begin(), alone.dout.size(), alone.dout.begin());
    alone.run();
    together.out.resize(alone.q.size());
    together.dq.resize(alone.q.size());
    together.dkv.resize(alone.kv.size());
    expect_same_bits(together.out.actual, alone.out.actual);
    expect_same_bits(together.dq.actual, alone.dq.actual);
    expect_same_bits(together.dkv.actual, alone.dkv.actual);
  });
}

// Nor on what the scratch memory held, or on the order of the calls.
TEST(Attention, CallsAreIndependent) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    Problem<T> problem({20, 37, 1, 49}, 2, 20, 0.1f);
    problem.run();
    const std::vector<T> out = problem.out.actual;
    const std::vector<T> dq = problem.dq.actual;
    const std::vector<T> dkv = problem.dkv.actual;
    Problem<T> spoiled({90}, 1, 64, 0.1f);
    std::fill(spoiled.q.begin(), spoiled.q.end(), T(NAN));
    std::fill(spoiled.kv.begin(), spoiled.kv.end(), T(NAN));
    spoiled.run();
    problem.forward(true);
    expect_same_bits(problem.out.actual, out);
    spoiled.run();
    problem.backward();
    expect_same_bits(problem.dq.actual, dq);
    expect_same_bits(problem.dkv.actual, dkv);
  });
}

// Nor does a sequence without queries get gradients from what was there.
TEST(Attention, SequenceWithoutQueries) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    Problem<T> spoiled({90}, 1, 64, 0.1f);
    std::fill(spoiled.kv.begin(), spoiled.kv.end(), T(NAN));
    spoiled.run();
    Problem<T> problem({20}, 1, 64, 0.1f, 21);
    problem.run();
    for (const T x : problem.dkv.actual) {
      ASSERT_EQ(static_cast<float>(x), 0.0f);
    }
  });
}

TEST(Attention, WithoutLogSumExp) {
  for_each_isa([] {
    Problem<float> problem({20}, 1, 16, 0.0f);
    problem.run();
    AttentionForward<float> forward;
    forward.shape = problem.shape;
    forward.positions = problem.positions.data();
    forward.q = problem.q.data();
    forward.kv = problem.kv.data();
    std::vector<float> out(problem.q.size());
    forward.out = out.data();
    attention_forward(forward, problem.sequences[0], 0);
    expect_same_bits(out, problem.out.actual);
  });
}

TEST(Attention, LargeScoresAreSafe) {
  for_each_isa([] {
    Problem<float> problem({20}, 1, 16, 0.0f);
    for (std::vector<float>* x : {&problem.q, &problem.kv}) {
      for (float& value : *x) {
        value *= 1000.0f;
      }
    }
    problem.run();
    for (const auto* d : {&problem.dq, &problem.dkv}) {
      for (size_t i = 0; i < d->actual.size(); ++i) {
        ASSERT_TRUE(std::isfinite(d->actual[i])) << i;
      }
    }
  });
}

// Whether row i of out or of a gradient is to be NaN, and all of it.
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
    const auto own = [](int64_t token) { return token == 3; };
    const auto first = [](int64_t token) { return token < 21; };
    T& query = problem.q[problem.query_index(3, 0, 5)];
    T& key = problem.kv[problem.index(3, 0, 0, 5)];
    T& value = problem.kv[problem.index(3, 1, 0, 5)];
    query = T(NAN);
    problem.run();
    expect_nan_rows(problem.out.actual, 16, own);
    expect_nan_rows(problem.dq.actual, 16, own);
    expect_nan_rows(problem.dkv.actual, 32, first);
    query = T(0.0f);
    key = T(NAN);
    problem.run();
    expect_nan_rows(problem.out.actual, 16, first);
    expect_nan_rows(problem.dq.actual, 16, first);
    expect_nan_rows(problem.dkv.actual, 32, first);
    key = T(0.0f);
    value = T(INFINITY);
    problem.run();
    for (int64_t i = 0; i < 41; ++i) {
      const auto out = [&](int64_t c) {
        return static_cast<float>(problem.out.actual[i * 16 + c]);
      };
      ASSERT_EQ(std::isfinite(out(5)), i >= 21);
      ASSERT_TRUE(std::isfinite(out(0)));
    }
  });
}

} // namespace
} // namespace deepspeed::kernels
