// How DeepSpeed's stages 1 and 2 cut the flat elements of a param group into
// shards.
#include "deepspeed/checkpoint/zero_shard.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace deepspeed::checkpoint {

int64_t padded_numel(int64_t numel, int ranks) {
  if (numel < 0 || ranks < 1) {
    throw std::invalid_argument(
        "no shards of " + std::to_string(numel) + " elements for " +
        std::to_string(ranks) + " ranks");
  }
  const int64_t alignment = int64_t{2} * ranks;
  const int64_t over = numel % alignment;
  return over == 0 ? numel : numel + (alignment - over);
}

Shard shard_of(int64_t numel, int ranks, int rank) {
  const int64_t padded = padded_numel(numel, ranks);
  if (rank < 0 || rank >= ranks) {
    throw std::invalid_argument(
        "no rank " + std::to_string(rank) + " among " + std::to_string(ranks));
  }
  Shard shard;
  shard.size = padded / ranks;
  shard.offset = shard.size * rank;
  shard.used = std::clamp<int64_t>(numel - shard.offset, 0, shard.size);
  return shard;
}

Overlap overlap_of(const Shard& shard, int64_t begin, int64_t numel) {
  const int64_t first = std::max(begin, shard.offset);
  const int64_t last = std::min(begin + numel, shard.offset + shard.size);
  if (first >= last) {
    return {};
  }
  return {first - begin, first - shard.offset, last - first};
}

} // namespace deepspeed::checkpoint
