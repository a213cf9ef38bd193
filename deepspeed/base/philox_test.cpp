// Philox against the known answers of Random123, and its helper stream.
#include "deepspeed/base/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace deepspeed::base {
namespace {

// kat_vectors of Random123 for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(
      philox({0, 0, 0, 0}, {0, 0}),
      (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(
      philox(
          {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
          {0xffffffff, 0xffffffff}),
      (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox(
          {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
          {0xa4093822, 0x299f31d0}),
      (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, KeysOfDifferentPurposesAndSitesDiffer) {
  std::set<PhiloxKey> keys;
  for (uint64_t seed : {0, 1, 2}) {
    for (Purpose purpose : {Purpose::order, Purpose::mask, Purpose::dropout}) {
      for (uint32_t site = 0; site < 100; ++site) {
        keys.insert(philox_key(seed, purpose, site));
      }
    }
  }
  EXPECT_EQ(keys.size(), 900u);
}

TEST(PhiloxStream, BelowIsUniform) {
  PhiloxStream stream(philox_key(7, Purpose::mask), 42);
  constexpr int kBins = 7;
  constexpr int kDraws = 70000;
  int count[kBins] = {};
  for (int i = 0; i < kDraws; ++i) {
    ++count[stream.below(kBins)];
  }
  for (int bin : count) {
    EXPECT_NEAR(bin, kDraws / kBins, 400); // 4 standard deviations
  }
}

TEST(PhiloxStream, ObjectsHaveUnrelatedStreams) {
  PhiloxStream a(philox_key(7, Purpose::mask), 1);
  PhiloxStream b(philox_key(7, Purpose::mask), uint64_t{1} << 32);
  EXPECT_NE(a.next(), b.next());
}

} // namespace
} // namespace deepspeed::base
