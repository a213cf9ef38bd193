// The order visits every sample once an epoch, and all orders are as likely.
#include "deepspeed/text/sample_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

namespace deepspeed::text {
namespace {

std::vector<uint64_t> epoch_of(
    const SampleOrder& order,
    uint64_t n,
    int epoch) {
  std::vector<uint64_t> samples(n);
  for (uint64_t i = 0; i < n; ++i) {
    const Visit visit = order.at(epoch * n + i);
    EXPECT_EQ(visit.epoch, static_cast<uint64_t>(epoch));
    samples[i] = visit.sample;
  }
  return samples;
}

TEST(SampleOrder, EveryEpochOfEverySizeIsAPermutation) {
  for (uint64_t n = 1; n <= 600; ++n) {
    const SampleOrder order(n, n * 7);
    for (int epoch : {0, 1, 5}) {
      std::vector<uint64_t> samples = epoch_of(order, n, epoch);
      std::sort(samples.begin(), samples.end());
      for (uint64_t i = 0; i < n; ++i) {
        ASSERT_EQ(samples[i], i) << "n " << n << " epoch " << epoch;
      }
    }
  }
}

TEST(SampleOrder, LargeSizesStayInRange) {
  for (const uint64_t n :
       {uint64_t{41677}, (uint64_t{1} << 32) + 3, uint64_t{1} << 48}) {
    const SampleOrder order(n, 1);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 1000; ++i) {
      const Visit visit = order.at(3 * n + i);
      EXPECT_EQ(visit.epoch, 3u);
      EXPECT_LT(visit.sample, n);
      seen.insert(visit.sample);
    }
    EXPECT_EQ(seen.size(), 1000u);
    EXPECT_GT(*seen.rbegin(), n / 2); // not a corner of the data
  }
  EXPECT_THROW(SampleOrder(0, 1), std::invalid_argument);
  EXPECT_THROW(SampleOrder((uint64_t{1} << 48) + 1, 1), std::invalid_argument);
}

TEST(SampleOrder, EpochsAndSeedsGiveOtherOrders) {
  constexpr uint64_t kSize = 1000;
  std::set<std::vector<uint64_t>> orders;
  for (uint64_t seed : {0, 1, 2, 42}) {
    const SampleOrder order(kSize, seed);
    for (int epoch = 0; epoch < 5; ++epoch) {
      orders.insert(epoch_of(order, kSize, epoch));
    }
  }
  EXPECT_EQ(orders.size(), 20u);
}

// Pearson's chi-square of the orders of `epochs` epochs against equal shares.
double chi_square_of_orders(uint64_t n, int epochs, uint64_t seed) {
  const SampleOrder order(n, seed);
  std::map<std::vector<uint64_t>, int> count;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    ++count[epoch_of(order, n, epoch)];
  }
  double orders = 1.0;
  for (uint64_t i = 2; i <= n; ++i) {
    orders *= static_cast<double>(i);
  }
  const double expected = epochs / orders;
  double sum = (orders - static_cast<double>(count.size())) * expected;
  for (const auto& [samples, times] : count) {
    sum += (times - expected) * (times - expected) / expected;
  }
  return sum;
}

TEST(SampleOrder, AllOrdersOfFewSamplesAreAsLikely) {
  // Mean + 4.5 standard deviations of chi-square with n! - 1 degrees.
  for (const auto& [n, degrees] : std::map<uint64_t, double>{
           {2, 1}, {3, 5}, {4, 23}, {5, 119}, {6, 719}}) {
    for (uint64_t seed : {1, 2}) {
      EXPECT_LT(
          chi_square_of_orders(n, 100000, seed),
          degrees + 4.5 * std::sqrt(2 * degrees) + 6)
          << n << " samples";
    }
  }
}

TEST(SampleOrder, EverySampleIsAsLikelyAtEveryPlace) {
  constexpr uint64_t kSize = 37;
  constexpr int kEpochs = 20000;
  const SampleOrder order(kSize, 3);
  std::vector<int> at(kSize * kSize);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const std::vector<uint64_t> samples = epoch_of(order, kSize, epoch);
    for (uint64_t i = 0; i < kSize; ++i) {
      ++at[i * kSize + samples[i]];
    }
  }
  const double expected = static_cast<double>(kEpochs) / kSize;
  double sum = 0.0;
  for (int times : at) {
    sum += (times - expected) * (times - expected) / expected;
  }
  const double degrees = (kSize - 1) * (kSize - 1);
  EXPECT_NEAR(sum, degrees, 4.5 * std::sqrt(2 * degrees));
}

// Neighbours in the stream are far from each other in the file: the mean
// distance of two random samples of n is n / 3.
TEST(SampleOrder, NeighboursAreUnrelated) {
  constexpr uint64_t kSize = 41677;
  const SampleOrder order(kSize, 5);
  const std::vector<uint64_t> samples = epoch_of(order, kSize, 0);
  for (uint64_t lag : {1, 2, 204, 205}) { // rows and columns of the network
    double sum = 0.0;
    for (uint64_t i = 0; i + lag < kSize; ++i) {
      sum += std::abs(
          static_cast<double>(samples[i]) -
          static_cast<double>(samples[i + lag]));
    }
    const double mean = sum / static_cast<double>(kSize - lag);
    EXPECT_NEAR(mean / kSize, 1.0 / 3, 0.006) << "lag " << lag;
  }
}

} // namespace
} // namespace deepspeed::text
