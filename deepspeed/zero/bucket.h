// Which gradients travel together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace deepspeed::zero {

// Neighbouring parameters of one flat buffer, in elements and entries.
struct Bucket {
  int64_t begin = 0;
  int64_t end = 0;
  size_t first_entry = 0;
  size_t last_entry = 0; // included
};

// Cuts a flat buffer whose parameters have these sizes into buckets of at most
// `bucket_size` elements, but at least one parameter. Backward reaches the last
// parameters first, so the first bucket is the one at the end of the buffer;
// before it come the `early` entries (ascending), each a bucket of its own.
std::vector<Bucket> cut_into_buckets(
    std::span<const int64_t> numels,
    int64_t bucket_size,
    std::span<const size_t> early = {});

// The bounds of all ranks' shards inside [begin, end), counted from `begin`:
// what a reduce-scatter of that range needs.
std::vector<int64_t> bounds_inside(
    std::span<const int64_t> bounds,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::zero
