// Batches of masked sequences, packed one after the other and never padded.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "deepspeed/text/dealing.h"
#include "deepspeed/text/masking.h"
#include "deepspeed/text/sample_order.h"
#include "deepspeed/text/token_cache.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::text {

struct PackedBatch {
  std::vector<int32_t>
      ids; // [tokens] masked ids, <s> ... </s> of each sequence
  std::vector<int32_t> positions; // [tokens] 2, 3, ... from each <s> (RoBERTa)
  std::vector<int32_t> cu_seqlens; // [sequences + 1] offsets; 0 first
  std::vector<int32_t> masked; // [masked] indices into ids, ascending
  std::vector<int32_t> labels; // [masked] the original ids
  std::vector<uint64_t> visits; // [sequences] stream position: key of dropout

  bool operator==(const PackedBatch&) const = default;
};

struct BatchOptions {
  uint64_t seed = 0; // of the order and of the masks
  uint32_t max_seq_length = 512; // with <s> and </s>; 3 to 512
  BatchShape shape;
  Dealing dealing = Dealing::balanced;
  MaskOptions mask;
};

// What masking needs to know of a tokenizer.
MaskVocabulary mask_vocabulary(const Tokenizer& tokenizer);

// Makes any batch of a run from its place alone. `cache` and `tokenizer` must
// outlive it. Constant after construction, safe from many threads.
class BatchMaker {
 public:
  // Throws Error(usage) for options out of range, Error(data) if the tokenizer
  // is not that of the cache.
  BatchMaker(
      const TokenCache& cache,
      const Tokenizer& tokenizer,
      const BatchOptions& options);

  // The training step of the global() stream positions from `begin` on. It
  // needs the lengths of its samples, not their tokens.
  DealtStep deal(uint64_t begin) const;
  // The samples at these stream positions.
  PackedBatch make(std::span<const uint64_t> positions) const;
  // How many tokens that batch has: much quicker than to make it.
  uint64_t tokens(std::span<const uint64_t> positions) const;
  // Of the training step that begins there.
  PackedBatch make(uint64_t begin, uint64_t micro = 0, uint64_t rank = 0) const;
  // A rank's micro batches from the step on that begins there, by number, in
  // the order of training; each step is dealt once. For one thread; this must
  // outlive it.
  std::function<PackedBatch(uint64_t)> training(uint64_t begin, uint64_t rank)
      const;
  // Samples [first, first + count) in the order of the file, up to its end.
  // Their masks depend on the sample alone, not on the seed: every evaluation
  // of every run predicts the same tokens. `visits` are sample numbers.
  PackedBatch make_eval(uint64_t first, uint64_t count) const;

  // Samples of the data set.
  uint64_t samples() const {
    return cache_.size();
  }

 private:
  void append(uint64_t sample, uint64_t visit, const Masker&, PackedBatch&)
      const;
  uint32_t length(uint64_t position) const;

  const TokenCache& cache_;
  const int32_t bos_;
  const int32_t eos_;
  const BatchOptions options_;
  const SampleOrder order_;
  const Masker train_masker_;
  const Masker eval_masker_;
};

} // namespace deepspeed::text
