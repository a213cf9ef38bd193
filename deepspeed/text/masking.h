// Masks for masked language modelling, by HelloDeepSpeed's rule.
//
// The rule is that of masking_function in train_bert.py of
// microsoft/DeepSpeedExamples, training/HelloDeepSpeed. The random numbers are
// ours: a mask depends on (seed, visit) alone, not on rank, thread or history.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "deepspeed/base/philox.h"

namespace deepspeed::text {

// Each in [0, 1]; random + unmask <= 1.
struct MaskOptions {
  double mask_prob = 0.15; // share of the tokens that are predicted
  double random_replace_prob = 0.1; // of those: another token instead of <mask>
  double unmask_replace_prob = 0.1; // of those: the token itself
};

struct MaskVocabulary {
  int32_t vocab_size = 0;
  int32_t mask = 0; // id of <mask>
  std::vector<int32_t> special; // ids that never replace a token
};

// Constant after construction, safe from many threads.
class Masker {
 public:
  // Throws Error(usage) for a probability out of range, Error(data) for a
  // vocabulary of special ids only.
  Masker(
      const MaskOptions& options,
      const MaskVocabulary& vocabulary,
      base::PhiloxKey key);

  // Masks one sequence <s> ... </s> in place. Of its m inner tokens
  // n = max(int(mask_prob * m + U), 1) are chosen, U uniform in [0, 1); each
  // becomes <mask>, or with probability random + unmask (in that proportion) a
  // uniform token that is not special, or stays. Appends for each chosen token,
  // in ascending order, `offset` + its index to `masked` and its id before to
  // `labels`. A sequence without inner tokens stays as it is.
  void mask(
      std::span<int32_t> ids,
      uint64_t visit,
      int32_t offset,
      std::vector<int32_t>& masked,
      std::vector<int32_t>& labels) const;

 private:
  int32_t replacement(int32_t id, base::PhiloxStream& stream) const;

  MaskOptions options_;
  MaskVocabulary vocabulary_; // special: sorted, unique
  base::PhiloxKey key_;
};

} // namespace deepspeed::text
