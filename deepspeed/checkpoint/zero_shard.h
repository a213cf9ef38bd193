// How DeepSpeed's stages 1 and 2 cut the flat elements of a param group into
// shards: runtime/zero/stage_1_and_2.py, nccl_start_alignment_factor.
#pragma once

#include <cstdint>

namespace deepspeed::checkpoint {

// The part of a flat buffer that one rank owns, in elements. Equal sizes for
// all ranks; the buffer is padded with zeros up to padded_numel().
struct Shard {
  int64_t offset = 0; // in the padded buffer
  int64_t size = 0; // padding included
  int64_t used = 0; // without the padding: the last ranks may have less or none
};

// `numel` rounded up to a multiple of 2 * ranks. std::invalid_argument if
// numel is negative or ranks is not positive.
int64_t padded_numel(int64_t numel, int ranks);

// The shard of `rank`; std::invalid_argument as above, or for a rank that is
// not in [0, ranks).
Shard shard_of(int64_t numel, int ranks, int rank);

// Elements of a parameter that lie in a shard.
struct Overlap {
  int64_t in_parameter = 0; // the first of them, counted in the parameter
  int64_t in_shard = 0; // the same element, counted in the shard
  int64_t numel = 0; // 0: none
};

// `begin` and `numel` say where the parameter lies in the flat buffer.
Overlap overlap_of(const Shard& shard, int64_t begin, int64_t numel);

} // namespace deepspeed::checkpoint
