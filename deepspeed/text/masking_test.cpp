// HelloDeepSpeed's masking rule, and that a mask depends on its visit alone.
#include "deepspeed/text/masking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

constexpr int32_t kMask = 99;
const MaskVocabulary kVocabulary{100, kMask, {0, 1, 2, 50, 99}};

struct Masked {
  std::vector<int32_t> ids;
  std::vector<int32_t> masked;
  std::vector<int32_t> labels;

  bool operator==(const Masked&) const = default;
};

std::vector<int32_t> sequence(int inner) {
  std::vector<int32_t> ids(inner + 2, 10);
  std::iota(ids.begin() + 1, ids.end() - 1, 3);
  ids.front() = 0;
  ids.back() = 2;
  return ids;
}

Masked mask(
    const MaskOptions& options,
    int inner,
    uint64_t visit,
    uint64_t seed = 1) {
  const Masker masker(
      options, kVocabulary, base::philox_key(seed, base::Purpose::mask));
  Masked result;
  result.ids = sequence(inner);
  masker.mask(result.ids, visit, 0, result.masked, result.labels);
  return result;
}

TEST(Masker, ChangesTheChosenTokensAndNoOther) {
  for (int inner : {1, 2, 3, 7, 40}) {
    for (uint64_t visit = 0; visit < 200; ++visit) {
      const Masked result = mask({0.3, 0.4, 0.3}, inner, visit);
      std::vector<int32_t> restored = result.ids;
      ASSERT_EQ(result.masked.size(), result.labels.size());
      for (size_t i = 0; i < result.masked.size(); ++i) {
        ASSERT_GE(result.masked[i], 1);
        ASSERT_LE(result.masked[i], inner);
        restored[result.masked[i]] = result.labels[i];
      }
      EXPECT_EQ(restored, sequence(inner));
      EXPECT_TRUE(std::is_sorted(result.masked.begin(), result.masked.end()));
      EXPECT_EQ(
          std::set<int32_t>(result.masked.begin(), result.masked.end()).size(),
          result.masked.size());
    }
  }
}

TEST(Masker, ChoosesAsManyAsTheRuleSays) {
  constexpr int kVisits = 4000;
  for (double prob : {0.0, 0.15, 0.5, 1.0}) {
    for (int inner : {1, 2, 6, 20, 33}) {
      const double exact = prob * inner;
      const double low = std::max(std::floor(exact), 1.0);
      const double high = std::max(std::floor(exact + 1 - 1e-9), 1.0);
      double sum = 0.0;
      for (uint64_t visit = 0; visit < kVisits; ++visit) {
        const auto n =
            static_cast<double>(mask({prob}, inner, visit).masked.size());
        ASSERT_GE(n, low) << prob << " of " << inner;
        ASSERT_LE(n, high) << prob << " of " << inner;
        sum += n;
      }
      EXPECT_NEAR(sum / kVisits, std::max(exact, 1.0), 0.04);
    }
  }
}

TEST(Masker, EverySetOfTokensIsAsLikely) {
  constexpr int kVisits = 60000;
  std::map<std::vector<int32_t>, int> count;
  for (uint64_t visit = 0; visit < kVisits; ++visit) {
    ++count[mask({0.5, 0, 0}, 6, visit).masked]; // 3 of 6
  }
  EXPECT_EQ(count.size(), 20u);
  double sum = 0.0;
  for (const auto& [masked, times] : count) {
    sum += std::pow(times - kVisits / 20.0, 2) / (kVisits / 20.0);
  }
  EXPECT_LT(sum, 19 + 4.5 * std::sqrt(2 * 19)); // chi-square, 19 degrees
}

struct Shares {
  double masked = 0;
  double same = 0;
  double other = 0;
};

Shares shares(const MaskOptions& options) {
  Shares shares;
  double total = 0;
  for (uint64_t visit = 0; visit < 3000; ++visit) {
    const Masked result = mask(options, 40, visit);
    for (size_t i = 0; i < result.masked.size(); ++i) {
      const int32_t id = result.ids[result.masked[i]];
      ++(id == kMask                  ? shares.masked
             : id == result.labels[i] ? shares.same
                                      : shares.other);
      ++total;
    }
  }
  return {shares.masked / total, shares.same / total, shares.other / total};
}

TEST(Masker, ReplacesInTheGivenProportions) {
  const Shares all = shares({0.5, 0.3, 0.2});
  EXPECT_NEAR(all.masked, 0.5, 0.01);
  EXPECT_NEAR(all.other, 0.3 * 94 / 95, 0.01); // 1 of 95 is the token itself
  EXPECT_NEAR(all.same, 0.2 + 0.3 / 95, 0.01);
  EXPECT_EQ(shares({0.5, 0, 0}).masked, 1.0);
  const Shares unmasked = shares({0.5, 0, 0.4});
  EXPECT_NEAR(unmasked.same, 0.4, 0.01);
  EXPECT_EQ(unmasked.other, 0.0);
  EXPECT_NEAR(shares({0.5, 0.4, 0}).other, 0.4 * 94 / 95, 0.01);
  EXPECT_EQ(shares({0.5, 0, 1}).same, 1.0);
  EXPECT_EQ(shares({0.5, 1, 0}).masked, 0.0);
}

TEST(Masker, RandomTokensAreUniformAndNotSpecial) {
  std::map<int32_t, int> count;
  int total = 0;
  for (uint64_t visit = 0; visit < 5000; ++visit) {
    const Masked result = mask({1, 1, 0}, 20, visit);
    for (size_t i = 1; i <= 20; ++i) {
      ++count[result.ids[i]];
      ++total;
    }
  }
  for (int32_t special : kVocabulary.special) {
    EXPECT_EQ(count.count(special), 0u) << special;
  }
  EXPECT_EQ(count.size(), 95u);
  double sum = 0.0;
  for (const auto& [id, times] : count) {
    sum += std::pow(times - total / 95.0, 2) / (total / 95.0);
  }
  EXPECT_LT(sum, 94 + 4.5 * std::sqrt(2 * 94)); // chi-square, 94 degrees
}

TEST(Masker, DependsOnSeedAndVisitAlone) {
  const Masked first = mask({}, 100, 7);
  EXPECT_EQ(mask({}, 100, 7), first);
  EXPECT_FALSE(mask({}, 100, 8) == first);
  EXPECT_FALSE(mask({}, 100, 7 + (uint64_t{1} << 32)) == first);
  EXPECT_FALSE(mask({}, 100, 7, 2) == first);
}

TEST(Masker, NothingToMaskIsLeftAlone) {
  for (uint64_t visit = 0; visit < 100; ++visit) {
    EXPECT_TRUE(mask({1}, 0, visit).masked.empty());
  }
}

TEST(Masker, AddsTheOffset) {
  const Masker masker(
      {}, kVocabulary, base::philox_key(1, base::Purpose::mask));
  std::vector<int32_t> ids = sequence(30);
  std::vector<int32_t> masked{5};
  std::vector<int32_t> labels{6};
  masker.mask(ids, 7, 1000, masked, labels);
  const Masked alone = mask({}, 30, 7);
  ASSERT_EQ(masked.size(), alone.masked.size() + 1);
  EXPECT_EQ(masked[0], 5);
  EXPECT_EQ(masked[1], 1000 + alone.masked[0]);
}

TEST(Masker, RefusesWhatIsNoProbability) {
  const auto code = [](const MaskOptions& options, const MaskVocabulary& v) {
    try {
      Masker(options, v, {});
    } catch (const base::Error& error) {
      return error.code();
    }
    return base::ExitCode::ok;
  };
  using base::ExitCode;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(code({0.15, 0.5, 0.5}, kVocabulary), ExitCode::ok);
  EXPECT_EQ(code({-0.1, 0.1, 0.1}, kVocabulary), ExitCode::usage);
  EXPECT_EQ(code({1.1, 0.1, 0.1}, kVocabulary), ExitCode::usage);
  EXPECT_EQ(code({nan, 0.1, 0.1}, kVocabulary), ExitCode::usage);
  EXPECT_EQ(code({0.15, 0.6, 0.5}, kVocabulary), ExitCode::usage);
  EXPECT_EQ(code({}, {2, 1, {0, 1}}), ExitCode::data);
  EXPECT_EQ(code({}, {10, 1, {10}}), ExitCode::data);
}

} // namespace
} // namespace deepspeed::text
