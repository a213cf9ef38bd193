// Which sample comes when: a pure function of the seed.
//
// The run sees an endless stream of samples: position p is in epoch p / n, and
// each epoch is a permutation of all n samples. The permutation is a keyed
// bijection, so any position is found at once, without a table: a resume
// replays nothing. It is the generalized Feistel network of Black and Rogaway,
// "Ciphers with arbitrary finite domains" (CT-RSA 2002), section 5, over
// Philox.
#pragma once

#include <cstdint>

#include "deepspeed/base/philox.h"

namespace deepspeed::text {

struct Visit {
  uint64_t epoch;
  uint64_t sample;

  bool operator==(const Visit&) const = default;
};

// Constant after construction, safe from many threads.
class SampleOrder {
 public:
  // 1 <= samples <= 2^48, else std::invalid_argument.
  SampleOrder(uint64_t samples, uint64_t seed);

  Visit at(uint64_t stream_position) const;

 private:
  uint64_t permute_once(uint64_t value, uint64_t epoch) const;

  uint64_t samples_;
  // The network permutes rows_ * columns_ >= samples_ values.
  uint64_t rows_;
  uint64_t columns_;
  base::PhiloxKey key_;
};

// How a global batch is made: its sequences are `ranks` equal slices of the
// stream, one for each rank, and a slice is `accumulation` micro batches.
struct BatchShape {
  uint64_t batch_size = 8; // sequences of one micro batch of one rank
  uint64_t accumulation = 1; // micro batches of a step
  uint64_t ranks = 1;

  uint64_t global() const {
    return batch_size * accumulation * ranks;
  }
  // Stream position of the first sequence of a micro batch; the others follow.
  // A step takes global() positions from `begin` on, however they are shared.
  uint64_t first_position(uint64_t begin, uint64_t micro, uint64_t rank) const {
    return begin + (rank * accumulation + micro) * batch_size;
  }
};

} // namespace deepspeed::text
