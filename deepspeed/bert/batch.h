// A packed batch with what the blocks of the model need to know about it.
#pragma once

#include <cstdint>
#include <vector>

#include "deepspeed/flat/torch_headers.h"
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dropout.h"
#include "deepspeed/text/batch.h"

namespace deepspeed::bert {

// Constant after construction.
class Batch {
 public:
  explicit Batch(text::PackedBatch packed);

  const text::PackedBatch& packed() const {
    return packed_;
  }
  int64_t tokens() const {
    return static_cast<int64_t>(packed_.ids.size());
  }
  int64_t masked() const {
    return static_cast<int64_t>(packed_.masked.size());
  }
  // All sequences in the order of the batch.
  const std::vector<kernels::Sequence>& sequences() const {
    return sequences_;
  }
  // The distinct ids of the batch, ascending.
  const std::vector<int64_t>& words() const {
    return words_;
  }
  // Keys of dropout for each token; valid as long as the batch.
  kernels::TokenKeys token_keys() const {
    return {token_visits_.data(), token_positions_.data()};
  }
  // [masked], int64: rows of the hidden states that are predicted.
  const at::Tensor& masked_rows() const {
    return masked_rows_;
  }

 private:
  text::PackedBatch packed_;
  std::vector<kernels::Sequence> sequences_;
  std::vector<int64_t> words_;
  std::vector<uint64_t> token_visits_; // [tokens]
  std::vector<uint32_t> token_positions_; // [tokens], from 0
  at::Tensor masked_rows_;
};

} // namespace deepspeed::bert
