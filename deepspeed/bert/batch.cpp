// A packed batch with what the blocks of the model need to know about it.
#include "deepspeed/bert/batch.h"

#include <algorithm>

namespace deepspeed::bert {

Batch::Batch(text::PackedBatch packed)
    : packed_(std::move(packed)),
      words_(packed_.ids.begin(), packed_.ids.end()) {
  std::sort(words_.begin(), words_.end());
  words_.erase(std::unique(words_.begin(), words_.end()), words_.end());
  token_visits_.reserve(packed_.ids.size());
  token_positions_.reserve(packed_.ids.size());
  for (size_t i = 0; i + 1 < packed_.cu_seqlens.size(); ++i) {
    const int32_t first = packed_.cu_seqlens[i];
    const int32_t length = packed_.cu_seqlens[i + 1] - first;
    const uint64_t visit = packed_.visits[i];
    sequences_.push_back({first, length, visit});
    for (int32_t position = 0; position < length; ++position) {
      token_visits_.push_back(visit);
      token_positions_.push_back(static_cast<uint32_t>(position));
    }
  }
  masked_rows_ = at::empty({masked()}, at::kLong);
  std::copy(
      packed_.masked.begin(),
      packed_.masked.end(),
      masked_rows_.data_ptr<int64_t>());
}

} // namespace deepspeed::bert
