// A packed batch with what the blocks of the model need to know about it.
#include "deepspeed/bert/batch.h"

#include <algorithm>
#include <numeric>

namespace deepspeed::bert {
namespace {

// `tokens` are ascending indices into the ids of the batch.
OutputTokens output_tokens(
    const text::PackedBatch& packed,
    const std::vector<int32_t>& tokens) {
  OutputTokens outputs;
  auto next = tokens.begin();
  for (size_t i = 0; i + 1 < packed.cu_seqlens.size(); ++i) {
    const int32_t first = packed.cu_seqlens[i];
    const int32_t end = packed.cu_seqlens[i + 1];
    kernels::Sequence sequence;
    sequence.first = first;
    sequence.length = end - first;
    sequence.visit = packed.visits[i];
    sequence.first_query = outputs.count();
    for (; next != tokens.end() && *next < end; ++next) {
      outputs.visits.push_back(sequence.visit);
      outputs.positions.push_back(static_cast<uint32_t>(*next - first));
    }
    sequence.queries = outputs.count() - sequence.first_query;
    outputs.sequences.push_back(sequence);
  }
  outputs.rows = tokens;
  return outputs;
}

std::vector<int32_t> all(size_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

} // namespace

Batch::Batch(text::PackedBatch packed)
    : packed_(std::move(packed)),
      all_tokens_(output_tokens(packed_, all(packed_.ids.size()))),
      masked_tokens_(output_tokens(packed_, packed_.masked)),
      words_(packed_.ids.begin(), packed_.ids.end()) {
  std::sort(words_.begin(), words_.end());
  words_.erase(std::unique(words_.begin(), words_.end()), words_.end());
}

} // namespace deepspeed::bert
