// The embedding against plain loops in double.
#include "deepspeed/kernels/embedding.h"

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

constexpr int64_t kVocabulary = 50;
constexpr int64_t kPositions = 20;

struct Indices {
  explicit Indices(int64_t tokens) : ids(tokens), positions(tokens) {
    std::mt19937 generator(3);
    for (int64_t i = 0; i < tokens; ++i) {
      ids[i] = static_cast<int32_t>(generator() % kVocabulary);
      positions[i] = static_cast<int32_t>(2 + i % 11);
    }
  }
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
};

template <typename T>
void check_forward(int64_t tokens, int64_t hidden, float p) {
  const Indices indices(tokens);
  const TestTokens keys(tokens);
  const std::vector<T> word = random_array<T>(kVocabulary * hidden, 1);
  const std::vector<T> position = random_array<T>(kPositions * hidden, 2);
  const std::vector<T> type = random_array<T>(hidden, 3);
  const std::vector<T> gamma = random_array<T>(hidden, 4);
  const std::vector<T> beta = random_array<T>(hidden, 5);
  std::vector<T> y(tokens * hidden);
  std::vector<T> normalized(tokens * hidden);
  std::vector<float> rstd(tokens);
  EmbeddingForward<T> args;
  args.hidden = hidden;
  args.ids = indices.ids.data();
  args.positions = indices.positions.data();
  args.word = word.data();
  args.position = position.data();
  args.type = type.data();
  args.gamma = gamma.data();
  args.beta = beta.data();
  args.dropout = make_dropout(p, 1, 0);
  args.tokens = keys.keys();
  args.y = y.data();
  args.normalized = normalized.data();
  args.rstd = rstd.data();
  embedding_forward(args, 0, 1);
  embedding_forward(args, 1, tokens);

  std::vector<double> expected(y.size());
  std::vector<double> expected_normalized(y.size());
  std::vector<double> expected_rstd(tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> z(hidden);
    double mean = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      z[i] = static_cast<double>(
                 static_cast<float>(word[indices.ids[t] * hidden + i])) +
          static_cast<float>(position[indices.positions[t] * hidden + i]) +
          static_cast<float>(type[i]);
      mean += z[i] / hidden;
    }
    double variance = 0;
    for (double value : z) {
      variance += (value - mean) * (value - mean) / hidden;
    }
    expected_rstd[t] = 1 / std::sqrt(variance + 1e-5);
    for (int64_t i = 0; i < hidden; ++i) {
      const int64_t at = t * hidden + i;
      expected_normalized[at] = (z[i] - mean) * expected_rstd[t];
      expected[at] = (expected_normalized[at] * static_cast<float>(gamma[i]) +
                      static_cast<float>(beta[i])) *
          dropout_factor(args.dropout, keys.visit[t], keys.position[t], i);
    }
  }
  expect_near(rstd, expected_rstd, 1e-6, 0.0);
  expect_near(normalized, expected_normalized, 1e-6);
  expect_near(y, expected, 2e-6);
}

TEST(Embedding, ForwardMatchesTheDefinition) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    check_forward<T>(2, 7, 0.0f);
    check_forward<T>(31, 48, 0.1f);
    check_forward<T>(100, 256, 0.5f);
  });
}

template <typename T>
void check_backward(int64_t tokens, int64_t hidden, int32_t padding_id) {
  const Indices indices(tokens);
  const std::vector<T> d = random_array<T>(tokens * hidden, 1);
  std::vector<float> dword(kVocabulary * hidden, 0.5f);
  std::vector<float> dposition(kPositions * hidden, 0.25f);
  std::vector<float> dtype(hidden, -1.0f);
  std::vector<double> expected_word(dword.begin(), dword.end());
  std::vector<double> expected_position(dposition.begin(), dposition.end());
  std::vector<double> expected_type(dtype.begin(), dtype.end());
  for (int64_t i = 0; i < tokens * hidden; ++i) {
    const int64_t t = i / hidden;
    const double value = static_cast<float>(d[i]);
    if (indices.ids[t] != padding_id) {
      expected_word[indices.ids[t] * hidden + i % hidden] += value;
    }
    expected_position[indices.positions[t] * hidden + i % hidden] += value;
    expected_type[i % hidden] += value;
  }
  EmbeddingBackward<T> args;
  args.tokens = tokens;
  args.hidden = hidden;
  args.ids = indices.ids.data();
  args.positions = indices.positions.data();
  args.padding_id = padding_id;
  args.d = d.data();
  args.dword = dword.data();
  args.dposition = dposition.data();
  args.dtype = dtype.data();
  embedding_backward(args, 0, hidden / 3);
  embedding_backward(args, hidden / 3, hidden);
  expect_near(dword, expected_word, 1e-6, 10.0);
  expect_near(dposition, expected_position, 1e-6, 30.0);
  expect_near(dtype, expected_type, 1e-6, static_cast<double>(tokens));
}

TEST(Embedding, BackwardAddsWhatTheDefinitionSays) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    check_backward<T>(1, 5, -1);
    check_backward<T>(40, 33, 7);
    check_backward<T>(300, 256, -1);
  });
}

} // namespace
} // namespace deepspeed::kernels
