// A packed batch with what the blocks of the model need to know about it.
#pragma once

#include <cstdint>
#include <vector>

#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/dropout.h"
#include "deepspeed/text/batch.h"

namespace deepspeed::bert {

// Tokens of a batch that a layer gives an output for.
struct OutputTokens {
  // All sequences of the batch in its order, with their queries: these tokens.
  std::vector<kernels::Sequence> sequences;
  std::vector<uint64_t> visits; // [outputs], keys of dropout
  std::vector<uint32_t> positions; // [outputs], from 0
  std::vector<int32_t> rows; // [outputs], of the hidden states

  int64_t count() const {
    return static_cast<int64_t>(visits.size());
  }
  // Valid as long as this.
  kernels::TokenKeys keys() const {
    return {visits.data(), positions.data()};
  }
};

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
  // The distinct ids of the batch, ascending.
  const std::vector<int64_t>& words() const {
    return words_;
  }
  const OutputTokens& all_tokens() const {
    return all_tokens_;
  }
  // Those that are predicted.
  const OutputTokens& masked_tokens() const {
    return masked_tokens_;
  }

 private:
  text::PackedBatch packed_;
  OutputTokens all_tokens_;
  OutputTokens masked_tokens_;
  std::vector<int64_t> words_;
};

} // namespace deepspeed::bert
