// How the sequences of a global batch are dealt to its micro batches.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "deepspeed/text/sample_order.h"

namespace deepspeed::text {

enum class Dealing {
  in_order, // micro batches are slices of the stream
  balanced, // micro batches have nearly as many tokens each
};

// Deals sequences of `lengths` tokens to micro batches of equal counts and
// nearly equal tokens: the indices of the first micro batch's sequences,
// ascending, then those of the second, ... Micro batches come in the order of
// their first sequences. A pure function, without random choices.
// `micro_batches` divides the number of sequences, else std::invalid_argument.
std::vector<uint64_t> deal_balanced(
    std::span<const uint32_t> lengths,
    uint64_t micro_batches);

// The sequences of one training step, micro batch by micro batch.
struct DealtStep {
  BatchShape shape;
  std::vector<uint64_t> positions; // [shape.global()] in the stream

  std::span<const uint64_t> micro_batch(uint64_t micro, uint64_t rank) const {
    return std::span(positions).subspan(
        shape.number(micro, rank) * shape.batch_size, shape.batch_size);
  }
};

} // namespace deepspeed::text
