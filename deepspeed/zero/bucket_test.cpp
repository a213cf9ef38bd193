// Buckets: whole parameters, from the end, at most so large.
#include "deepspeed/zero/bucket.h"

#include <gtest/gtest.h>

namespace deepspeed::zero {
namespace {

using Pairs = std::vector<std::pair<int64_t, int64_t>>;

Pairs cut(std::vector<int64_t> numels, int64_t bucket_size) {
  Pairs pairs;
  for (const Bucket& bucket : cut_into_buckets(numels, bucket_size)) {
    pairs.emplace_back(bucket.begin, bucket.end);
  }
  return pairs;
}

TEST(Bucket, HoldsWholeParametersFromTheEnd) {
  EXPECT_EQ(cut({5, 3, 4, 2}, 6), (Pairs{{8, 14}, {5, 8}, {0, 5}}));
  EXPECT_EQ(cut({5, 3, 4, 2}, 100), (Pairs{{0, 14}}));
  EXPECT_EQ(cut({5, 3}, 1), (Pairs{{5, 8}, {0, 5}}));
  EXPECT_EQ(cut({}, 10), Pairs{});
}

TEST(Bucket, NamesItsEntries) {
  const auto buckets = cut_into_buckets(std::vector<int64_t>{5, 3, 4, 2}, 6);
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].first_entry, 2u);
  EXPECT_EQ(buckets[0].last_entry, 3u);
  EXPECT_EQ(buckets[2].first_entry, 0u);
  EXPECT_EQ(buckets[2].last_entry, 0u);
}

TEST(Bucket, EarlyEntriesComeFirstAndAlone) {
  const std::vector<size_t> early{1};
  const auto buckets =
      cut_into_buckets(std::vector<int64_t>{5, 3, 4, 2}, 100, early);
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].begin, 5);
  EXPECT_EQ(buckets[0].end, 8);
  EXPECT_EQ(buckets[1].begin, 8); // not across the early one
  EXPECT_EQ(buckets[1].end, 14);
  EXPECT_EQ(buckets[2].begin, 0);
}

TEST(Bucket, BoundsOfShardsInsideARange) {
  const std::vector<int64_t> bounds{0, 10, 20, 30};
  EXPECT_EQ(bounds_inside(bounds, 5, 25), (std::vector<int64_t>{0, 5, 15, 20}));
  EXPECT_EQ(bounds_inside(bounds, 12, 15), (std::vector<int64_t>{0, 0, 3, 3}));
}

} // namespace
} // namespace deepspeed::zero
