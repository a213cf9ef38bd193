// Token ids of a whole source in one memory-mapped file, made once.
#include "deepspeed/text/token_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/text/cache_file.h"

namespace deepspeed::text {
namespace {

// A few milliseconds of hashing: small caches are checked whole.
constexpr uint64_t kAlwaysVerifiedBytes = uint64_t{64} << 20;

base::Error damaged(const std::string& path, const std::string& what) {
  return base::Error(
      base::ExitCode::data,
      "the token cache is damaged: " + what,
      path.empty() ? "in memory" : path,
      path.empty() ? "the machine's memory may be faulty"
                   : "delete this file, it is made again");
}

std::string range_of_block(uint64_t block, uint64_t data_bytes) {
  const uint64_t begin = block * kCacheBlockBytes;
  return "bytes " + std::to_string(begin) + " to " +
      std::to_string(std::min(begin + kCacheBlockBytes, data_bytes)) +
      " are not what was written";
}

// The ids of one sample as 32-bit numbers; the largest of them is returned.
template <typename Token>
uint32_t widen(const std::byte* from, uint32_t n, int32_t* out) {
  uint32_t largest = 0;
  for (uint32_t i = 0; i < n; ++i) {
    Token token = 0;
    std::memcpy(&token, from + i * sizeof(Token), sizeof(Token));
    largest = std::max<uint32_t>(largest, token);
    out[i] = static_cast<int32_t>(token);
  }
  return largest;
}

} // namespace

TokenCache TokenCache::open(const std::string& path, bool verify) {
  TokenCache cache;
  cache.file_ = file::MappedFile(path);
  cache.file_.checked([&] {
    cache.read_footer(verify);
    return true;
  });
  return cache;
}

TokenCache TokenCache::from_bytes(std::string bytes, bool verify) {
  TokenCache cache;
  cache.memory_ = std::move(bytes);
  cache.read_footer(verify);
  return cache;
}

TokenCache::TokenCache(TokenCache&&) noexcept = default;
TokenCache& TokenCache::operator=(TokenCache&&) noexcept = default;
TokenCache::~TokenCache() = default;

std::span<const std::byte> TokenCache::bytes() const {
  return path().empty() ? std::as_bytes(std::span(memory_)) : file_.bytes();
}

void TokenCache::read_footer(bool verify) {
  const std::span<const std::byte> all = bytes();
  CacheFooter footer;
  if (all.size() < kCacheMagic.size() + sizeof footer ||
      std::memcmp(all.data(), kCacheMagic.data(), kCacheMagic.size()) != 0) {
    throw damaged(path(), "not a cache file of this version");
  }
  const uint64_t before = all.size() - sizeof footer; // data and hashes
  std::memcpy(&footer, all.data() + before, sizeof footer);
  if (footer.footer_hash != hash_of(footer)) {
    throw damaged(path(), "its end is missing or was changed");
  }
  const std::string_view key(footer.key.data(), footer.key.size());
  // The bounds come first, so that the sum cannot overflow.
  if (footer.samples == 0 || footer.samples > before ||
      footer.tokens > before ||
      footer.token_bytes != token_bytes_of(footer.vocab_size) ||
      !is_cache_key(key)) {
    throw damaged(path(), "its sizes do not fit");
  }
  data_bytes_ = offsets_begin(footer.tokens, footer.token_bytes) +
      (footer.samples + 1) * sizeof(uint64_t);
  const uint64_t blocks = blocks_of(data_bytes_);
  if (data_bytes_ + blocks * sizeof(uint64_t) != before) {
    throw damaged(path(), "its sizes do not fit");
  }
  if (hash_of_table(all.first(before).subspan(data_bytes_)) !=
      footer.table_hash) {
    throw damaged(path(), "its hashes were changed");
  }
  is_sound_ = std::make_unique<std::atomic<bool>[]>(blocks);
  key_ = key;
  samples_ = footer.samples;
  tokens_ = footer.tokens;
  vocab_size_ = footer.vocab_size;
  token_bytes_ = footer.token_bytes;
  for (uint64_t i = 0;
       (verify || all.size() <= kAlwaysVerifiedBytes) && i < blocks;
       ++i) {
    if (!check_block(i)) {
      throw damaged(path(), "its " + range_of_block(i, data_bytes_));
    }
  }
}

bool TokenCache::check_block(uint64_t block) const {
  const std::span<const std::byte> all = bytes();
  const uint64_t begin = block * kCacheBlockBytes;
  uint64_t hash = 0;
  std::memcpy(
      &hash, all.data() + data_bytes_ + block * sizeof hash, sizeof hash);
  if (hash_of_block(all.subspan(
          begin, std::min(kCacheBlockBytes, data_bytes_ - begin))) != hash) {
    return false;
  }
  is_sound_[block].store(true, std::memory_order_relaxed);
  return true;
}

void TokenCache::require_sound(uint64_t begin, uint64_t end) const {
  for (uint64_t block = begin / kCacheBlockBytes;
       block <= (end - 1) / kCacheBlockBytes;
       ++block) {
    if (is_sound_[block].load(std::memory_order_relaxed) ||
        check_block(block)) {
      continue;
    }
    base::Error error =
        damaged(path(), "its " + range_of_block(block, data_bytes_));
    if (path().empty() || file::file_system().remove(path()) != 0) {
      throw error;
    }
    throw base::Error(
        error.code(),
        error.what(),
        error.where(),
        "the file was removed: start again, it is made again");
  }
}

uint64_t TokenCache::offset(uint64_t i) const {
  uint64_t value = 0;
  const uint64_t at = offsets_begin(tokens_, token_bytes_) + i * sizeof value;
  require_sound(at, at + sizeof value);
  std::memcpy(&value, bytes().data() + at, sizeof value);
  return value;
}

uint32_t TokenCache::length(uint64_t i) const {
  if (i >= samples_) {
    throw std::out_of_range("TokenCache: no sample " + std::to_string(i));
  }
  const uint64_t begin = offset(i);
  const uint64_t end = offset(i + 1);
  if (end <= begin || end > tokens_ || end - begin > kMaxSampleIds) {
    throw damaged(path(), "at sample " + std::to_string(i));
  }
  return static_cast<uint32_t>(end - begin);
}

uint32_t TokenCache::copy(uint64_t i, uint32_t max_ids, int32_t* out) const {
  const uint32_t n = std::min(length(i), max_ids);
  const uint64_t begin = kCacheMagic.size() + offset(i) * token_bytes_;
  if (n > 0) {
    require_sound(begin, begin + uint64_t{n} * token_bytes_);
  }
  const std::byte* from = bytes().data() + begin;
  const uint32_t largest = token_bytes_ == sizeof(uint16_t)
      ? widen<uint16_t>(from, n, out)
      : widen<uint32_t>(from, n, out);
  if (largest >= vocab_size_) {
    throw damaged(path(), "at sample " + std::to_string(i));
  }
  return n;
}

} // namespace deepspeed::text
