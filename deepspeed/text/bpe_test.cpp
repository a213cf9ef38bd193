// Merging, and remembering what was merged.
#include "deepspeed/text/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "deepspeed/text/bpe_memo.h"

namespace deepspeed::text {
namespace {

// 256 bytes and random merges over a small alphabet. Ranks follow no order of
// size, and different pairs may give the same token.
struct RandomBpe {
  explicit RandomBpe(uint32_t seed, int letters, int merge_count) {
    std::mt19937 random(seed);
    std::map<std::string, int32_t> ids;
    for (int b = 0; b < 256; ++b) {
      byte_ids[b] = b;
      tokens.add(std::string(1, static_cast<char>(b)));
    }
    std::vector<int32_t> usable;
    for (int i = 0; i < letters; ++i) {
      usable.push_back('a' + i);
    }
    while (static_cast<int>(merges.size()) < merge_count) {
      const int32_t left = usable[random() % usable.size()];
      const int32_t right = usable[random() % usable.size()];
      const std::string text =
          std::string(tokens[left]) + std::string(tokens[right]);
      if (text.size() > 24 || ranks.count({left, right}) > 0) {
        continue;
      }
      ranks[{left, right}] = 0;
      const auto [found, is_new] =
          ids.emplace(text, static_cast<int32_t>(tokens.size()));
      if (is_new) {
        tokens.add(text);
        usable.push_back(found->second);
      }
      merges.push_back({left, right, found->second});
    }
    std::shuffle(merges.begin(), merges.end(), random);
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      ranks[{merges[rank].left, merges[rank].right}] = rank;
    }
  }

  TokenTable tokens;
  std::vector<Merge> merges;
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  std::array<int32_t, 256> byte_ids;
};

// The definition, step by step.
std::vector<int32_t> slow_encode(const RandomBpe& bpe, std::string_view word) {
  std::vector<int32_t> ids;
  for (const char c : word) {
    ids.push_back(static_cast<unsigned char>(c));
  }
  while (true) {
    size_t best_rank = bpe.merges.size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = bpe.ranks.find({ids[i], ids[i + 1]});
      if (found != bpe.ranks.end() && found->second < best_rank) {
        best_rank = found->second;
        best = i;
      }
    }
    if (best_rank == bpe.merges.size()) {
      return ids;
    }
    ids[best] = bpe.merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

std::string random_word(std::mt19937& random, int letters, size_t size) {
  std::string word;
  for (size_t i = 0; i < size; ++i) {
    word += static_cast<char>('a' + random() % letters);
  }
  return word;
}

TEST(Bpe, AgreesWithTheDefinitionAtEveryLength) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const int letters = 1 + static_cast<int>(seed % 4);
    const RandomBpe tables(seed, letters, letters == 1 ? 12 : 60);
    const Bpe bpe(tables.merges, tables.byte_ids, tables.tokens);
    std::mt19937 random(seed);
    for (size_t size = 1; size < 100; ++size) {
      const std::string word = random_word(random, letters, size);
      std::vector<int32_t> ids{-7};
      bpe.encode(word, ids);
      ASSERT_EQ(ids[0], -7) << "it must append";
      ids.erase(ids.begin());
      ASSERT_EQ(ids, slow_encode(tables, word)) << seed << " " << word;
    }
  }
}

// A word beyond 64 KiB is encoded in parts: they must fit together. The merges
// are those of a repeated letter, where each boundary depends on the length.
TEST(Bpe, PartsOfALongWordFitTogether) {
  TokenTable tokens;
  std::array<int32_t, 256> byte_ids;
  for (int b = 0; b < 256; ++b) {
    tokens.add(std::string(1, static_cast<char>(b)));
    byte_ids[b] = b;
  }
  // aa, aaa (aa + a), aaaaa (aaa + aa): a part of 65536 letters leaves a rest.
  tokens.add("aa");
  tokens.add("aaa");
  tokens.add("aaaaa");
  const std::vector<Merge> merges{
      {'a', 'a', 256}, {256, 'a', 257}, {257, 256, 258}, {256, 257, 258}};
  const Bpe bpe(merges, byte_ids, tokens);
  for (const size_t size : {65536, 65537, 131072, 200001}) {
    std::vector<int32_t> ids;
    bpe.encode(std::string(size, 'a'), ids);
    // All pairs first: 256 256 256 ...; an odd letter joins the last pair.
    std::vector<int32_t> expected(size / 2, 256);
    if (size % 2 == 1) {
      expected.pop_back();
      expected.back() = 258; // 256 + 257
    }
    ASSERT_EQ(ids, expected) << size;
  }
}

TEST(Bpe, PartsFitTogetherWhateverTheMerges) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const RandomBpe tables(seed, 2, 200);
    const Bpe bpe(tables.merges, tables.byte_ids, tables.tokens);
    std::mt19937 random(seed);
    const std::string word = random_word(random, 2, 150000);
    std::vector<int32_t> ids;
    bpe.encode(word, ids);
    std::string joined;
    for (size_t i = 0; i < ids.size(); ++i) {
      joined += tables.tokens[ids[i]];
      if (i > 0) {
        // Right if each two neighbours are the encoding of their own bytes.
        const std::string pair = std::string(tables.tokens[ids[i - 1]]) +
            std::string(tables.tokens[ids[i]]);
        if (i % 64 == 0 || i + 2000 > ids.size()) {
          ASSERT_EQ(
              slow_encode(tables, pair),
              (std::vector<int32_t>{ids[i - 1], ids[i]}));
        }
      }
    }
    ASSERT_EQ(joined, word);
  }
}

// Quadratic time would take hours here.
TEST(Bpe, TenMegabytesOfOneLetterTakeSeconds) {
  const RandomBpe tables(1, 1, 12);
  const Bpe bpe(tables.merges, tables.byte_ids, tables.tokens);
  std::vector<int32_t> ids;
  bpe.encode(std::string(10 << 20, 'a'), ids);
  size_t size = 0;
  for (const int32_t id : ids) {
    size += tables.tokens[id].size();
  }
  EXPECT_EQ(size, size_t{10} << 20);
}

PretokenMemo::Key key_of(const std::string& word) {
  return PretokenMemo::key_of(
      word.data(), word.size(), word.data() + word.size());
}

TEST(PretokenMemo, KeyDoesNotDependOnWhatFollows) {
  const std::string text = "abcdefghijklmnopqrstuvwxyz";
  for (size_t size = 1; size <= PretokenMemo::kLongestWord; ++size) {
    EXPECT_EQ(
        PretokenMemo::key_of(text.data(), size, text.data() + text.size()),
        key_of(text.substr(0, size)));
  }
  EXPECT_FALSE(key_of("a") == key_of(std::string("a\0", 2)));
}

TEST(PretokenMemo, RemembersAndForgetsInBoundedMemory) {
  PretokenMemo memo;
  size_t most = 0;
  for (int32_t i = 0; i < 700000; ++i) {
    const std::string word = std::to_string(i);
    std::vector<int32_t> ids(static_cast<size_t>(1 + i % 5));
    std::iota(ids.begin(), ids.end(), i);
    memo.insert(key_of(word), ids);
    std::vector<int32_t> found;
    ASSERT_TRUE(memo.find(key_of(word), found));
    ASSERT_EQ(found, ids);
    most = std::max(most, memo.size());
    if (i == 100000) {
      found.clear();
      ASSERT_TRUE(memo.find(key_of("4"), found));
      ASSERT_EQ(found, (std::vector<int32_t>{4, 5, 6, 7, 8}));
    }
  }
  EXPECT_LE(most, size_t{400000});
  std::vector<int32_t> found;
  EXPECT_FALSE(memo.find(key_of("4"), found)) << "forgotten";
  EXPECT_FALSE(memo.find(key_of("x"), found));
}

} // namespace
} // namespace deepspeed::text
