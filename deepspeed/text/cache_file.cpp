// The bytes of a token cache file.
#include "deepspeed/text/cache_file.h"

#include <xxhash.h>

#include <cstddef>

namespace deepspeed::text {

uint64_t hash_of(const CacheFooter& footer) {
  return XXH3_64bits(&footer, offsetof(CacheFooter, footer_hash));
}

uint64_t hash_of_block(std::span<const std::byte> block) {
  return XXH3_64bits(block.data(), block.size());
}

std::array<uint64_t, 2> hash_of_table(std::span<const std::byte> hashes) {
  const XXH128_hash_t hash = XXH3_128bits(hashes.data(), hashes.size());
  return {hash.low64, hash.high64};
}

bool is_cache_key(std::string_view key) {
  return key.size() == sizeof(CacheFooter::key) &&
      key.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

} // namespace deepspeed::text
