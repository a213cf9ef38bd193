// Which gradients travel together.
#include "deepspeed/zero/bucket.h"

#include <algorithm>
#include <numeric>

namespace deepspeed::zero {

std::vector<Bucket> cut_into_buckets(
    std::span<const int64_t> numels,
    int64_t bucket_size,
    std::span<const size_t> early) {
  int64_t begin = std::accumulate(numels.begin(), numels.end(), int64_t{0});
  std::vector<Bucket> first;
  std::vector<Bucket> buckets;
  for (size_t i = numels.size(); i-- > 0;) {
    const int64_t end = begin;
    begin -= numels[i];
    if (std::binary_search(early.begin(), early.end(), i)) {
      first.push_back({begin, end, i, i});
    } else if (
        !buckets.empty() && buckets.back().begin == end &&
        buckets.back().end - begin <= bucket_size) {
      buckets.back().begin = begin;
      buckets.back().first_entry = i;
    } else {
      buckets.push_back({begin, end, i, i});
    }
  }
  buckets.insert(buckets.begin(), first.begin(), first.end());
  return buckets;
}

std::vector<int64_t> bounds_inside(
    std::span<const int64_t> bounds,
    int64_t begin,
    int64_t end) {
  std::vector<int64_t> inside;
  for (const int64_t bound : bounds) {
    inside.push_back(std::clamp(bound, begin, end) - begin);
  }
  return inside;
}

} // namespace deepspeed::zero
