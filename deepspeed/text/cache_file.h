// The bytes of a token cache file.
//
//   char     magic[8]              "DSTOKEN2"
//   uint16 or uint32               ids of sample 0, 1, ...; 16 bits wide if the
//                                  vocabulary has at most 65536 ids
//   zeros                          up to a multiple of 8
//   uint64   offsets[samples + 1]  in ids; 0 first, ids of all samples last
//   uint64   hashes[blocks]        XXH3-64 of each 64 KiB of all before; the
//                                  last block may be shorter
//   CacheFooter
//
// All numbers are little-endian. The footer is last so that the file is written
// in one pass, whatever its size, and a file that was cut has none.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace deepspeed::text {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kCacheMagic = "DSTOKEN2";
// What files of all versions begin with; one more character is the version.
constexpr std::string_view kAnyCacheMagic = "DSTOKEN";
constexpr uint64_t kCacheBlockBytes = uint64_t{1} << 16;

struct CacheFooter {
  std::array<char, 32> key{}; // cache_key() of what it was made from
  uint64_t samples = 0;
  uint64_t tokens = 0;
  uint32_t token_bytes = 0; // 2 or 4
  uint32_t vocab_size = 0;
  std::array<uint64_t, 2> table_hash{}; // XXH3-128 of the hashes of blocks
  uint64_t footer_hash = 0; // XXH3-64 of the fields above
};
static_assert(sizeof(CacheFooter) == 80);

// XXH3-64 of the fields of a footer before its hash.
uint64_t hash_of(const CacheFooter& footer);

// XXH3-64 of a block.
uint64_t hash_of_block(std::span<const std::byte> block);

// XXH3-128 of the hashes of all blocks, as they are in the file.
std::array<uint64_t, 2> hash_of_table(std::span<const std::byte> hashes);

constexpr uint64_t blocks_of(uint64_t bytes) {
  return (bytes + kCacheBlockBytes - 1) / kCacheBlockBytes;
}

// True for 32 hexadecimal digits.
bool is_cache_key(std::string_view key);

constexpr uint32_t token_bytes_of(uint32_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

// Where the offsets begin: after the ids.
constexpr uint64_t offsets_begin(uint64_t tokens, uint32_t token_bytes) {
  return (kCacheMagic.size() + tokens * token_bytes + 7) / 8 * 8;
}

} // namespace deepspeed::text
