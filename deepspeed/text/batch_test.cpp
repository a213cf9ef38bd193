// Batches are packed as the model reads them, and a pure function of their
// place.
#include "deepspeed/text/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "deepspeed/base/error.h"
#include "deepspeed/text/cache_writer.h"
#include "deepspeed/text/test_tokenizer.h"

namespace deepspeed::text {
namespace {

// Sample i has lengths[i] ids that count up.
TokenCache cache_of(const std::vector<uint16_t>& lengths, uint32_t vocab_size) {
  std::string bytes;
  CacheWriter writer(vocab_size, [&](std::span<const std::byte> part) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  });
  std::vector<int32_t> ids;
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int j = 0; j < lengths[i]; ++j) {
      ids.push_back(4 + static_cast<int32_t>((i * 31 + j) % 256));
    }
  }
  writer.add(ids, lengths);
  writer.finish(std::string(32, '0'));
  return TokenCache::from_bytes(std::move(bytes), true);
}

std::vector<uint16_t> some_lengths() {
  std::vector<uint16_t> lengths;
  for (int i = 0; i < 1000; ++i) {
    lengths.push_back(static_cast<uint16_t>(1 + i * 37 % 160));
  }
  lengths[5] = kMaxSampleIds;
  return lengths;
}

class Batches : public ::testing::Test {
 protected:
  BatchMaker maker(const BatchOptions& options) const {
    return BatchMaker(cache_, *tokenizer_, options);
  }

  const std::vector<uint16_t> lengths_ = some_lengths();
  const std::shared_ptr<const Tokenizer> tokenizer_ = byte_tokenizer();
  const TokenCache cache_ = cache_of(lengths_, tokenizer_->vocab_size());
};

// The batch with the labels put back.
std::vector<int32_t> unmasked(const PackedBatch& batch) {
  std::vector<int32_t> ids = batch.ids;
  for (size_t i = 0; i < batch.masked.size(); ++i) {
    ids[batch.masked[i]] = batch.labels[i];
  }
  return ids;
}

TEST_F(Batches, HoldWholeSequencesAndNoPadding) {
  BatchOptions options;
  options.max_seq_length = 100;
  const PackedBatch batch = maker(options).make_eval(0, 8);
  ASSERT_EQ(batch.cu_seqlens.size(), 9u);
  ASSERT_EQ(batch.positions.size(), batch.ids.size());
  EXPECT_EQ(batch.cu_seqlens.front(), 0);
  EXPECT_EQ(batch.cu_seqlens.back(), static_cast<int32_t>(batch.ids.size()));
  const std::vector<int32_t> ids = unmasked(batch);
  for (size_t i = 0; i < 8; ++i) {
    const int begin = batch.cu_seqlens[i];
    const int end = batch.cu_seqlens[i + 1];
    const int inner = std::min<int>(lengths_[i], 98);
    ASSERT_EQ(end - begin, inner + 2);
    EXPECT_EQ(ids[begin], 0); // <s>
    EXPECT_EQ(ids[end - 1], 2); // </s>
    for (int j = 0; j < inner; ++j) {
      EXPECT_EQ(ids[begin + 1 + j], static_cast<int>(4 + (i * 31 + j) % 256));
    }
    for (int j = begin; j < end; ++j) {
      EXPECT_EQ(batch.positions[j], 2 + j - begin);
    }
    // Each sequence has at least one token to predict, never its ends.
    const auto chosen = std::count_if(
        batch.masked.begin(), batch.masked.end(), [&](int32_t at) {
          return at > begin && at < end - 1;
        });
    EXPECT_GE(chosen, 1);
  }
  EXPECT_TRUE(std::is_sorted(batch.masked.begin(), batch.masked.end()));
}

TEST_F(Batches, FollowTheOrderOfTheSeed) {
  BatchOptions options;
  options.seed = 3;
  const BatchMaker batches = maker(options);
  const SampleOrder order(1000, 3);
  for (uint64_t step : {0, 1, 124, 125, 1000}) { // an epoch has 125 steps
    const PackedBatch batch = batches.make(8 * step);
    for (uint64_t i = 0; i < 8; ++i) {
      EXPECT_EQ(batch.visits[i], step * 8 + i);
      const uint64_t sample = order.at(step * 8 + i).sample;
      EXPECT_EQ(
          batch.cu_seqlens[i + 1] - batch.cu_seqlens[i], lengths_[sample] + 2);
    }
  }
}

// One sequence with its masks, found by its visit.
struct Sequence {
  std::vector<int32_t> ids;
  std::vector<int32_t> masked; // from the start of the sequence
  std::vector<int32_t> labels;

  bool operator==(const Sequence&) const = default;
};

void split(const PackedBatch& batch, std::map<uint64_t, Sequence>& sequences) {
  for (size_t i = 0; i < batch.visits.size(); ++i) {
    const int begin = batch.cu_seqlens[i];
    const int end = batch.cu_seqlens[i + 1];
    Sequence sequence;
    sequence.ids.assign(batch.ids.begin() + begin, batch.ids.begin() + end);
    for (size_t j = 0; j < batch.masked.size(); ++j) {
      if (batch.masked[j] >= begin && batch.masked[j] < end) {
        sequence.masked.push_back(batch.masked[j] - begin);
        sequence.labels.push_back(batch.labels[j]);
      }
    }
    EXPECT_TRUE(sequences.emplace(batch.visits[i], sequence).second);
  }
}

TEST_F(Batches, AreTheSameForAnyNumberOfRanksAndMicroBatches) {
  std::map<uint64_t, Sequence> expected;
  for (uint64_t ranks : {1, 2, 4}) {
    for (uint64_t accumulation : {1, 2, 4}) {
      BatchOptions options;
      options.seed = 9;
      options.shape = {16 / ranks / accumulation, accumulation, ranks};
      const BatchMaker batches = maker(options);
      std::map<uint64_t, Sequence> sequences;
      for (uint64_t rank = 0; rank < ranks; ++rank) {
        for (uint64_t micro = 0; micro < accumulation; ++micro) {
          split(batches.make(77, micro, rank), sequences);
        }
      }
      EXPECT_EQ(sequences.size(), 16u);
      if (expected.empty()) {
        expected = sequences;
      }
      EXPECT_TRUE(sequences == expected) << ranks << " x " << accumulation;
    }
  }
}

// One rank with accumulation 4 is any division into four micro batches.
TEST_F(Batches, OfARankAreThoseOfOneRankWithMoreAccumulation) {
  for (const Dealing dealing : {Dealing::in_order, Dealing::balanced}) {
    BatchOptions options;
    options.dealing = dealing;
    options.shape = {3, 4, 1};
    const BatchMaker whole = maker(options);
    for (uint64_t ranks : {2, 4}) {
      options.shape = {3, 4 / ranks, ranks};
      const BatchMaker shared = maker(options);
      for (uint64_t number = 0; number < 4; ++number) {
        const uint64_t accumulation = options.shape.accumulation;
        EXPECT_EQ(
            shared.make(77, number % accumulation, number / accumulation),
            whole.make(77, number));
      }
    }
  }
}

TEST_F(Batches, InOrderAreSlicesOfTheStream) {
  BatchOptions options;
  options.dealing = Dealing::in_order;
  options.shape = {3, 2, 2};
  const BatchMaker batches = maker(options);
  EXPECT_EQ(batches.make(48, 1, 0).visits, (std::vector<uint64_t>{51, 52, 53}));
  EXPECT_EQ(batches.make(48, 0, 1).visits, (std::vector<uint64_t>{54, 55, 56}));
}

TEST_F(Batches, AreBalancedAsTheyAreCut) {
  BatchOptions options;
  options.seed = 4;
  options.shape = {8, 2, 3};
  options.max_seq_length = 70; // of samples of up to 160
  const SampleOrder order(1000, 4);
  std::vector<uint32_t> lengths;
  for (uint64_t i = 0; i < 48; ++i) {
    lengths.push_back(
        std::min<uint32_t>(lengths_[order.at(100 + i).sample] + 2, 70));
  }
  std::vector<uint64_t> expected = deal_balanced(lengths, 6);
  for (uint64_t& position : expected) {
    position += 100;
  }
  EXPECT_EQ(maker(options).deal(100).positions, expected);
}

TEST_F(Batches, OfARunFollowEachOther) {
  BatchOptions options;
  options.shape = {3, 2, 2};
  const BatchMaker batches = maker(options);
  const auto training = batches.training(24, 1);
  for (uint64_t number : {0, 1, 2, 3, 4, 7}) {
    EXPECT_EQ(
        training(number), batches.make(24 + number / 2 * 12, number % 2, 1));
  }
}

TEST_F(Batches, DependOnTheirPlaceAlone) {
  BatchOptions options;
  const BatchMaker first = maker(options);
  const BatchMaker resumed = maker(options);
  for (uint64_t step = 0; step < 20; ++step) {
    first.make(8 * step);
  }
  EXPECT_EQ(first.make(20), resumed.make(20));
  EXPECT_FALSE(first.make(20) == first.make(21));
  options.seed = 1;
  EXPECT_FALSE(maker(options).make(20) == first.make(20));
}

TEST_F(Batches, MaskASampleAnewInEachEpoch) {
  const BatchMaker batches = maker({});
  std::map<uint64_t, Sequence> sequences;
  for (uint64_t step = 0; step < 250; ++step) { // two epochs
    split(batches.make(8 * step), sequences);
  }
  const SampleOrder order(1000, 0);
  std::map<uint64_t, uint64_t> first_visits;
  for (uint64_t visit = 0; visit < 1000; ++visit) {
    first_visits[order.at(visit).sample] = visit;
  }
  int same = 0;
  for (uint64_t visit = 1000; visit < 2000; ++visit) {
    const Sequence& now = sequences[visit];
    const Sequence& before = sequences[first_visits[order.at(visit).sample]];
    ASSERT_EQ(now.ids.size(), before.ids.size());
    same += now.ids.size() > 50 && now.masked == before.masked ? 1 : 0;
  }
  EXPECT_EQ(same, 0);
}

TEST_F(Batches, OfAnEvaluationAreFixed) {
  BatchOptions options;
  const PackedBatch expected = maker(options).make_eval(990, 8);
  options.seed = 5;
  options.shape = {32, 2, 2};
  EXPECT_EQ(maker(options).make_eval(990, 8), expected);
  EXPECT_EQ(maker(options).make_eval(990, 100).visits.size(), 10u);
  EXPECT_TRUE(maker(options).make_eval(1000, 8).ids.empty());
  EXPECT_TRUE(maker(options).make_eval(5000, 8).ids.empty());
  // Batches of another size hold the same sequences with the same masks.
  std::map<uint64_t, Sequence> one;
  std::map<uint64_t, Sequence> two;
  split(maker(options).make_eval(0, 8), one);
  split(maker(options).make_eval(0, 3), two);
  split(maker(options).make_eval(3, 5), two);
  EXPECT_TRUE(one == two);
}

// test_masking_stats of HelloDeepSpeed's tests/test_train_bert.py: 10,000
// batches of 8, the shares of all tokens within 1e-3.
TEST(HelloDeepSpeed, MaskingStatistics) {
  const std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer();
  std::vector<uint16_t> lengths;
  for (int i = 0; i < 997; ++i) {
    lengths.push_back(static_cast<uint16_t>(8 + i * 37 % 160));
  }
  const TokenCache cache = cache_of(lengths, tokenizer->vocab_size());
  BatchOptions options;
  const BatchMaker batches(cache, *tokenizer, options);
  double total = 0;
  double chosen = 0;
  double same = 0;
  double other = 0;
  for (uint64_t step = 0; step < 10000; ++step) {
    const PackedBatch batch = batches.make(8 * step);
    total += static_cast<double>(batch.ids.size() - 2 * batch.visits.size());
    chosen += static_cast<double>(batch.masked.size());
    for (size_t i = 0; i < batch.masked.size(); ++i) {
      const int32_t id = batch.ids[batch.masked[i]];
      if (id != tokenizer->special().mask) {
        ++(id == batch.labels[i] ? same : other);
      }
    }
  }
  const MaskOptions& mask = options.mask;
  EXPECT_NEAR(chosen / total, mask.mask_prob, 1e-3);
  EXPECT_NEAR(other / total, mask.random_replace_prob * mask.mask_prob, 1e-3);
  EXPECT_NEAR(same / total, mask.unmask_replace_prob * mask.mask_prob, 1e-3);
}

TEST_F(Batches, TokensAreCountedWithoutABatch) {
  BatchOptions options;
  options.max_seq_length = 20; // some are cut
  options.shape = {3, 2, 2};
  const BatchMaker batches = maker(options);
  for (uint64_t step = 0; step < 10; ++step) {
    for (uint64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(
          batches.tokens(batches.deal(12 * step).micro_batch(i % 2, i / 2)),
          batches.make(12 * step, i % 2, i / 2).ids.size());
    }
  }
}

TEST_F(Batches, RefuseOptionsOutOfRange) {
  const auto code = [this](const BatchOptions& options) {
    try {
      maker(options);
    } catch (const base::Error& error) {
      return error.code();
    }
    return base::ExitCode::ok;
  };
  using base::ExitCode;
  BatchOptions options;
  EXPECT_EQ(code(options), ExitCode::ok);
  options.max_seq_length = 513;
  EXPECT_EQ(code(options), ExitCode::usage);
  options.max_seq_length = 2;
  EXPECT_EQ(code(options), ExitCode::usage);
  options.max_seq_length = 3;
  EXPECT_EQ(code(options), ExitCode::ok);
  options.shape.batch_size = 0;
  EXPECT_EQ(code(options), ExitCode::usage);
  options.shape.batch_size = uint64_t{1} << 31;
  EXPECT_EQ(code(options), ExitCode::usage);
}

TEST_F(Batches, RefuseACacheOfAnotherVocabulary) {
  const TokenCache other = cache_of({5, 6}, 300);
  EXPECT_THROW(BatchMaker(other, *tokenizer_, {}), base::Error);
}

} // namespace
} // namespace deepspeed::text
