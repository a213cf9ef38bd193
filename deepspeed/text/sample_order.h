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

// How a global batch is divided: into ranks x accumulation micro batches, which
// are the same ones for every division with that product.
struct BatchShape {
  uint64_t batch_size = 8; // sequences of one micro batch
  uint64_t accumulation = 1; // micro batches of a step
  uint64_t ranks = 1;

  uint64_t global() const {
    return batch_size * accumulation * ranks;
  }
  uint64_t micro_batches() const {
    return accumulation * ranks;
  }
  // Which of them is micro batch `micro` of `rank`.
  uint64_t number(uint64_t micro, uint64_t rank) const {
    return rank * accumulation + micro;
  }
};

} // namespace deepspeed::text
