// Micro batches of equal counts and nearly equal tokens.
#include "deepspeed/text/dealing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>

namespace deepspeed::text {
namespace {

using Indices = std::vector<uint64_t>;

Indices deal(const std::vector<uint32_t>& lengths, uint64_t micro_batches) {
  return deal_balanced(lengths, micro_batches);
}

// Tokens of the largest micro batch over their mean.
double imbalance(
    const std::vector<uint32_t>& lengths,
    const Indices& order,
    uint64_t micro_batches) {
  const uint64_t size = lengths.size() / micro_batches;
  double most = 0;
  double all = 0;
  for (uint64_t first = 0; first < lengths.size(); first += size) {
    double tokens = 0;
    for (uint64_t i = first; i < first + size; ++i) {
      tokens += lengths[order[i]];
    }
    most = std::max(most, tokens);
    all += tokens;
  }
  return most / (all / static_cast<double>(micro_batches));
}

// As the packaged corpus has them: log-normal, 73 tokens on average, with a
// standard deviation of 0.85 of that, cut at 512.
std::vector<uint32_t> some_lengths(std::mt19937& random, uint64_t count) {
  std::lognormal_distribution<double> length(4.0, 0.74);
  std::vector<uint32_t> lengths(count);
  for (uint32_t& one : lengths) {
    one = static_cast<uint32_t>(std::clamp(length(random), 5.0, 512.0));
  }
  return lengths;
}

TEST(Dealing, EachSequenceIsInOneMicroBatch) {
  std::mt19937 random(1);
  for (const uint64_t micro_batches : {1, 2, 3, 4, 8, 24}) {
    const std::vector<uint32_t> lengths = some_lengths(random, 24);
    Indices order = deal(lengths, micro_batches);
    ASSERT_EQ(order.size(), lengths.size());
    const uint64_t size = lengths.size() / micro_batches;
    Indices firsts;
    for (uint64_t first = 0; first < order.size(); first += size) {
      const auto begin = order.begin() + static_cast<int64_t>(first);
      EXPECT_TRUE(std::is_sorted(begin, begin + static_cast<int64_t>(size)));
      firsts.push_back(*begin);
    }
    EXPECT_TRUE(std::is_sorted(firsts.begin(), firsts.end()));
    std::sort(order.begin(), order.end());
    for (uint64_t i = 0; i < order.size(); ++i) {
      EXPECT_EQ(order[i], i);
    }
  }
}

TEST(Dealing, IsDefinedToTheLastTie) {
  // 9 and 2 are one micro batch, 7 and 4 the other, wherever they stand.
  EXPECT_EQ(deal({2, 9, 4, 7}, 2), (Indices{0, 1, 2, 3}));
  EXPECT_EQ(deal({9, 7, 4, 2}, 2), (Indices{0, 3, 1, 2}));
  EXPECT_EQ(deal({5, 5, 5, 5}, 2), (Indices{0, 1, 2, 3}));
  EXPECT_EQ(deal({1, 1, 1, 9, 9, 9}, 3), (Indices{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(deal({8, 1, 6, 2, 9}, 1), (Indices{0, 1, 2, 3, 4}));
  EXPECT_EQ(deal({}, 2), Indices{});
}

TEST(Dealing, BalancesTokens) {
  struct Case {
    uint64_t micro_batches;
    uint64_t size;
    double most; // of the mean over many global batches
  };
  for (const Case& c :
       {Case{2, 8, 1.02},
        Case{4, 8, 1.03},
        Case{8, 8, 1.03},
        Case{2, 4, 1.06},
        Case{2, 32, 1.005}}) {
    std::mt19937 random(7);
    constexpr int kSteps = 500;
    double balanced = 0;
    double in_order = 0;
    for (int step = 0; step < kSteps; ++step) {
      const std::vector<uint32_t> lengths =
          some_lengths(random, c.micro_batches * c.size);
      Indices order(lengths.size());
      std::iota(order.begin(), order.end(), 0);
      in_order += imbalance(lengths, order, c.micro_batches) / kSteps;
      balanced += imbalance(
                      lengths,
                      deal_balanced(lengths, c.micro_batches),
                      c.micro_batches) /
          kSteps;
    }
    EXPECT_LT(balanced, c.most) << c.micro_batches << " x " << c.size;
    EXPECT_GT(in_order - 1, 3 * (c.most - 1)) << "slices are no worse";
  }
}

// The longest sequence is as often in one micro batch as in another.
TEST(Dealing, PrefersNoRank) {
  std::mt19937 random(3);
  int first = 0;
  constexpr int kSteps = 1000;
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<uint32_t> lengths = some_lengths(random, 16);
    const Indices order = deal(lengths, 2);
    const auto longest = std::max_element(lengths.begin(), lengths.end());
    const auto at = std::find(
        order.begin(),
        order.end(),
        static_cast<uint64_t>(longest - lengths.begin()));
    first += at < order.begin() + 8 ? 1 : 0;
  }
  EXPECT_NEAR(first, kSteps / 2, 5 * std::sqrt(kSteps) / 2);
}

TEST(Dealing, RefusesUnequalCounts) {
  EXPECT_THROW(deal({1, 2, 3}, 2), std::invalid_argument);
  EXPECT_THROW(deal({1, 2}, 0), std::invalid_argument);
}

} // namespace
} // namespace deepspeed::text
