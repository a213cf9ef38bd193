// Shards against their definition, for all small sizes.
#include "deepspeed/checkpoint/zero_shard.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace deepspeed::checkpoint {
namespace {

TEST(ZeroShard, ShardsAreEqualAndCoverTheElements) {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (int64_t numel = 0; numel <= 100; ++numel) {
      const int64_t padded = padded_numel(numel, ranks);
      ASSERT_EQ(padded % (2 * ranks), 0);
      ASSERT_GE(padded, numel);
      ASSERT_LT(padded, numel + 2 * ranks);
      int64_t used = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Shard shard = shard_of(numel, ranks, rank);
        ASSERT_EQ(shard.size * ranks, padded);
        ASSERT_EQ(shard.offset, rank * shard.size);
        // Elements come first, padding last.
        ASSERT_EQ(shard.used == shard.size || used + shard.used == numel, true);
        used += shard.used;
      }
      ASSERT_EQ(used, numel);
    }
  }
}

TEST(ZeroShard, AFewByHand) {
  // 494 elements for 3 ranks: the next multiple of 6 is 498.
  EXPECT_EQ(padded_numel(494, 3), 498);
  const Shard last = shard_of(494, 3, 2);
  EXPECT_EQ(last.offset, 332);
  EXPECT_EQ(last.size, 166);
  EXPECT_EQ(last.used, 162);
  // Fewer elements than ranks: the last ones own padding alone.
  EXPECT_EQ(shard_of(3, 4, 1).used, 1);
  EXPECT_EQ(shard_of(3, 4, 2).used, 0);
}

TEST(ZeroShard, OverlapsAreCountedFromBothSides) {
  const Shard shard{10, 10, 10};
  const Overlap inside = overlap_of(shard, 12, 3);
  EXPECT_EQ(inside.in_parameter, 0);
  EXPECT_EQ(inside.in_shard, 2);
  EXPECT_EQ(inside.numel, 3);
  const Overlap left = overlap_of(shard, 4, 8);
  EXPECT_EQ(left.in_parameter, 6);
  EXPECT_EQ(left.in_shard, 0);
  EXPECT_EQ(left.numel, 2);
  EXPECT_EQ(overlap_of(shard, 0, 10).numel, 0);
  EXPECT_EQ(overlap_of(shard, 20, 1).numel, 0);
  EXPECT_EQ(overlap_of(shard, 0, 40).numel, 10);
}

TEST(ZeroShard, RefusesNonsense) {
  EXPECT_THROW(padded_numel(-1, 1), std::invalid_argument);
  EXPECT_THROW(padded_numel(1, 0), std::invalid_argument);
  EXPECT_THROW(shard_of(1, 2, 2), std::invalid_argument);
  EXPECT_THROW(shard_of(1, 2, -1), std::invalid_argument);
}

} // namespace
} // namespace deepspeed::checkpoint
