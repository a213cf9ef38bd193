// A cache gives back its ids, and any damage is noticed before it is used.
#include "deepspeed/text/token_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "deepspeed/base/error.h"
#include "deepspeed/text/cache_file.h"
#include "deepspeed/text/cache_writer.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

const std::string kKey = "0123456789abcdef0123456789abcdef";

std::string cache_bytes(
    uint32_t vocab_size,
    const std::vector<std::vector<int32_t>>& samples) {
  std::string bytes;
  CacheWriter writer(vocab_size, [&](std::span<const std::byte> part) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  });
  for (const std::vector<int32_t>& sample : samples) {
    const auto length = static_cast<uint16_t>(sample.size());
    writer.add(sample, {&length, 1});
  }
  writer.finish(kKey);
  return bytes;
}

std::vector<int32_t> sample_of(const TokenCache& cache, uint64_t i) {
  std::vector<int32_t> ids(cache.length(i));
  EXPECT_EQ(cache.copy(i, kMaxSampleIds, ids.data()), ids.size());
  return ids;
}

TEST(TokenCache, GivesBackTheIdsOfBothWidths) {
  for (uint32_t vocab_size : {65536, 65537}) {
    const std::vector<std::vector<int32_t>> samples{
        {5}, {0, 65535, 1}, {static_cast<int32_t>(vocab_size - 1), 7}};
    const TokenCache cache =
        TokenCache::from_bytes(cache_bytes(vocab_size, samples), true);
    EXPECT_EQ(cache.size(), 3u);
    EXPECT_EQ(cache.tokens(), 6u);
    EXPECT_EQ(cache.vocab_size(), vocab_size);
    EXPECT_EQ(cache.key(), kKey);
    EXPECT_EQ(cache.path(), "");
    for (uint64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(sample_of(cache, i), samples[i]);
    }
    int32_t two[2];
    EXPECT_EQ(cache.copy(1, 2, two), 2u);
    EXPECT_EQ(two[1], 65535);
    EXPECT_THROW(cache.length(3), std::out_of_range);
    EXPECT_THROW(cache.copy(3, 1, two), std::out_of_range);
  }
}

TEST(TokenCache, HoldsManySamples) { // more offsets than one block
  std::vector<std::vector<int32_t>> samples;
  for (int i = 0; i < 20000; ++i) {
    samples.emplace_back(1 + i % 3, i);
  }
  const TokenCache cache =
      TokenCache::from_bytes(cache_bytes(50265, samples), true);
  for (uint64_t i = 0; i < samples.size(); ++i) {
    ASSERT_EQ(sample_of(cache, i), samples[i]);
  }
}

ExitCode code_of(const std::string& bytes) {
  try {
    TokenCache::from_bytes(bytes, false);
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::ok;
}

TEST(TokenCache, NoticesEveryFlippedBitAndEveryCut) {
  const std::string good = cache_bytes(300, {{1, 2, 3}, {4}, {5, 6, 299}});
  ASSERT_EQ(code_of(good), ExitCode::ok);
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_EQ(code_of(bad), ExitCode::data) << "byte " << i;
    }
    EXPECT_EQ(code_of(good.substr(0, i)), ExitCode::data) << "cut at " << i;
  }
  EXPECT_EQ(code_of(good + '\0'), ExitCode::data);
}

// Appends hashes of blocks that fit, and puts their hash into the footer.
void sign(std::string& bytes, CacheFooter& footer) {
  std::vector<uint64_t> hashes;
  const auto data = std::as_bytes(std::span(bytes));
  for (size_t begin = 0; begin < data.size(); begin += kCacheBlockBytes) {
    hashes.push_back(hash_of_block(data.subspan(
        begin, std::min<size_t>(kCacheBlockBytes, data.size() - begin))));
  }
  const auto table = std::as_bytes(std::span(hashes));
  footer.table_hash = hash_of_table(table);
  footer.footer_hash = hash_of(footer);
  bytes.append(reinterpret_cast<const char*>(table.data()), table.size());
}

// Someone who can compute the hashes cannot make it read outside either.
std::string forged(
    std::string bytes,
    const std::function<void(std::string&, CacheFooter&)>& change) {
  CacheFooter footer;
  std::memcpy(
      &footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  const uint64_t data = offsets_begin(footer.tokens, footer.token_bytes) +
      (footer.samples + 1) * sizeof(uint64_t);
  bytes.resize(data);
  change(bytes, footer);
  sign(bytes, footer);
  bytes.append(reinterpret_cast<const char*>(&footer), sizeof footer);
  return bytes;
}

TEST(TokenCache, ForgedSizesAreRefused) {
  const std::string good = cache_bytes(300, {{1, 2, 3}, {4}});
  const auto with = [&](uint64_t CacheFooter::*field, uint64_t value) {
    return forged(good, [&](std::string&, CacheFooter& footer) {
      footer.*field = value;
    });
  };
  EXPECT_EQ(code_of(with(&CacheFooter::samples, 2)), ExitCode::ok);
  for (uint64_t value :
       {uint64_t{0},
        uint64_t{1},
        uint64_t{3},
        uint64_t{1} << 61,
        ~uint64_t{0}}) {
    EXPECT_EQ(code_of(with(&CacheFooter::samples, value)), ExitCode::data);
  }
  for (uint64_t value :
       {uint64_t{0}, uint64_t{9}, uint64_t{1} << 63, ~uint64_t{0}}) {
    EXPECT_EQ(code_of(with(&CacheFooter::tokens, value)), ExitCode::data);
  }
  EXPECT_EQ(
      code_of(forged(
          good,
          [](std::string&, CacheFooter& footer) { footer.token_bytes = 4; })),
      ExitCode::data);
  EXPECT_EQ(
      code_of(forged(
          good,
          [](std::string&, CacheFooter& footer) { footer.key[0] = '/'; })),
      ExitCode::data);
}

TEST(TokenCache, ForgedOffsetsAndIdsAreRefusedWhereTheyAreUsed) {
  const std::string good = cache_bytes(300, {{1, 2, 3}, {4}});
  int32_t ids[kMaxSampleIds];
  for (uint64_t offset : {uint64_t{0}, uint64_t{5}, ~uint64_t{0}}) {
    const TokenCache cache = TokenCache::from_bytes(
        forged(
            good,
            [&](std::string& bytes, CacheFooter& footer) {
              const uint64_t at =
                  offsets_begin(footer.tokens, footer.token_bytes);
              std::memcpy(&bytes[at + 8], &offset, sizeof offset);
            }),
        true);
    EXPECT_THROW(cache.copy(0, kMaxSampleIds, ids), Error) << offset;
  }
  const TokenCache cache = TokenCache::from_bytes(
      forged(
          good,
          [](std::string& bytes, CacheFooter&) {
            const uint16_t id = 300; // the vocabulary ends at 299
            std::memcpy(&bytes[kCacheMagic.size() + 2], &id, sizeof id);
          }),
      true);
  EXPECT_THROW(cache.copy(0, kMaxSampleIds, ids), Error);
  EXPECT_EQ(cache.copy(1, kMaxSampleIds, ids), 1u);
}

} // namespace
} // namespace deepspeed::text
