// The count of operations, against a count by hand.
#include "deepspeed/bert/flops.h"

#include <gtest/gtest.h>

#include <chrono>

namespace deepspeed::bert {
namespace {

// Sequences of these lengths; the first `masked` tokens are predicted.
Batch batch_of(const std::vector<int32_t>& lengths, int32_t masked) {
  text::PackedBatch packed;
  packed.cu_seqlens.push_back(0);
  for (const int32_t length : lengths) {
    for (int32_t i = 0; i < length; ++i) {
      packed.ids.push_back(5);
      packed.positions.push_back(2 + i);
    }
    packed.cu_seqlens.push_back(static_cast<int32_t>(packed.ids.size()));
    packed.visits.push_back(packed.visits.size());
  }
  for (int32_t i = 0; i < masked; ++i) {
    packed.masked.push_back(i);
    packed.labels.push_back(5);
  }
  return Batch(std::move(packed));
}

TEST(Flops, CountsProductsOfASmallModel) {
  RobertaConfig config;
  config.vocab_size = 100;
  config.hidden_size = 8;
  config.intermediate_size = 16;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 2;
  // Each token and layer: key and value are 2 products of 8 x 8, query and
  // output two more, the feed-forward layer two of 8 x 16; multiply and add.
  const double sources = 2 * (2 * 8 * 8);
  const double rest = 2 * (2 * 8 * 8 + 2 * 8 * 16);
  // Scores and context: 8 multiplications each for a pair of tokens.
  const double pair = 2 * (8 + 8);
  const double head = 2 * (8 * 8 + 8 * 100);
  // The masked ones are both tokens of the first sequence, one of the second.
  EXPECT_EQ(
      training_flops(config, batch_of({2, 3}, 3)),
      3 *
          (2 * (5 * (sources + rest) + (2 * 2 + 3 * 3) * pair) +
           (5 * sources + 3 * rest + (2 * 2 + 1 * 3) * pair) + 3 * head));
}

// 6 layers of 256 and 512: 5.24 MFLOP a token forward in the first five, 0.26
// in the last, where a masked token has 0.79 more, and 25.87 in the head.
TEST(Flops, TheDefaultModel) {
  const RobertaConfig config;
  const double one = training_flops(config, batch_of({1}, 0));
  EXPECT_NEAR(one, 3 * 5.51e6, 0.03e6);
  EXPECT_NEAR(
      training_flops(config, batch_of({1}, 1)) - one, 3 * 26.66e6, 0.03e6);
}

TEST(Flops, PeakIsPlausibleAndQuick) {
  const auto start = std::chrono::steady_clock::now();
  const double peak = measure_product_peak(at::kFloat);
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  EXPECT_GT(peak, 1e9);
  EXPECT_LT(peak, 1e15);
  EXPECT_LT(seconds.count(), 5); // 0.3 on a machine that nobody else uses
}

} // namespace
} // namespace deepspeed::bert
