// Batches of masked sequences, packed one after the other and never padded.
#include "deepspeed/text/batch.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

constexpr int32_t kFirstPosition = 2; // RoBERTa: padding_idx + 1
// The masks of an evaluation have a key of their own, the same for every seed.
constexpr uint64_t kEvalSeed = 0;
constexpr uint32_t kEvalSite = 1;

// The options, if a run can have them.
const BatchOptions& checked(const BatchOptions& options) {
  const BatchShape& shape = options.shape;
  if (options.max_seq_length < 3 ||
      options.max_seq_length > kMaxSampleIds + 2) {
    throw base::Error(
        base::ExitCode::usage,
        "a sequence has 3 to " + std::to_string(kMaxSampleIds + 2) +
            " tokens, not " + std::to_string(options.max_seq_length),
        "--max_seq_length",
        "");
  }
  // Indices into a batch are 32 bits wide.
  const uint64_t most =
      std::numeric_limits<int32_t>::max() / options.max_seq_length;
  if (shape.batch_size == 0 || shape.batch_size > most ||
      shape.accumulation == 0 || shape.ranks == 0) {
    throw base::Error(
        base::ExitCode::usage,
        "a micro batch has 1 to " + std::to_string(most) + " sequences, not " +
            std::to_string(shape.batch_size),
        "--batch_size",
        "");
  }
  return options;
}

void check_vocabulary(const TokenCache& cache, const Tokenizer& tokenizer) {
  if (static_cast<int64_t>(cache.vocab_size()) != tokenizer.vocab_size()) {
    throw base::Error(
        base::ExitCode::data,
        "the token cache was made for " + std::to_string(cache.vocab_size()) +
            " ids, the tokenizer has " + std::to_string(tokenizer.vocab_size()),
        cache.path(),
        "");
  }
}

} // namespace

MaskVocabulary mask_vocabulary(const Tokenizer& tokenizer) {
  return {
      tokenizer.vocab_size(),
      tokenizer.special().mask,
      tokenizer.special_ids()};
}

BatchMaker::BatchMaker(
    const TokenCache& cache,
    const Tokenizer& tokenizer,
    const BatchOptions& options)
    : cache_(cache),
      bos_(tokenizer.special().bos),
      eos_(tokenizer.special().eos),
      options_(checked(options)),
      order_(cache.size(), options.seed),
      train_masker_(
          options.mask,
          mask_vocabulary(tokenizer),
          base::philox_key(options.seed, base::Purpose::mask)),
      eval_masker_(
          options.mask,
          mask_vocabulary(tokenizer),
          base::philox_key(kEvalSeed, base::Purpose::mask, kEvalSite)) {
  check_vocabulary(cache, tokenizer);
}

void BatchMaker::append(
    uint64_t sample,
    uint64_t visit,
    const Masker& masker,
    PackedBatch& batch) const {
  const size_t begin = batch.ids.size();
  const uint32_t inner = options_.max_seq_length - 2;
  batch.ids.resize(begin + options_.max_seq_length);
  batch.ids[begin] = bos_;
  const size_t end =
      begin + 1 + cache_.copy(sample, inner, &batch.ids[begin + 1]);
  batch.ids[end] = eos_;
  batch.ids.resize(end + 1);
  for (size_t i = begin; i <= end; ++i) {
    batch.positions.push_back(kFirstPosition + static_cast<int32_t>(i - begin));
  }
  masker.mask(
      std::span(batch.ids).subspan(begin),
      visit,
      static_cast<int32_t>(begin),
      batch.masked,
      batch.labels);
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.ids.size()));
  batch.visits.push_back(visit);
}

uint32_t BatchMaker::length(uint64_t position) const {
  const uint64_t sample = order_.at(position).sample;
  return std::min(cache_.length(sample), options_.max_seq_length - 2) + 2;
}

DealtStep BatchMaker::deal(uint64_t begin) const {
  DealtStep step{options_.shape, {}};
  step.positions.resize(step.shape.global());
  std::iota(step.positions.begin(), step.positions.end(), begin);
  if (options_.dealing == Dealing::in_order ||
      step.shape.micro_batches() == 1) {
    return step;
  }
  std::vector<uint32_t> lengths;
  for (const uint64_t position : step.positions) {
    lengths.push_back(length(position));
  }
  step.positions = deal_balanced(lengths, step.shape.micro_batches());
  for (uint64_t& position : step.positions) {
    position += begin;
  }
  return step;
}

PackedBatch BatchMaker::make(std::span<const uint64_t> positions) const {
  PackedBatch batch;
  batch.cu_seqlens.push_back(0);
  for (const uint64_t position : positions) {
    append(order_.at(position).sample, position, train_masker_, batch);
  }
  return batch;
}

uint64_t BatchMaker::tokens(std::span<const uint64_t> positions) const {
  uint64_t sum = 0;
  for (const uint64_t position : positions) {
    sum += length(position);
  }
  return sum;
}

PackedBatch BatchMaker::make(uint64_t begin, uint64_t micro, uint64_t rank)
    const {
  return make(deal(begin).micro_batch(micro, rank));
}

std::function<PackedBatch(uint64_t)> BatchMaker::training(
    uint64_t begin,
    uint64_t rank) const {
  return [this, begin, rank, number = uint64_t{0}, step = deal(begin)](
             uint64_t index) mutable {
    const uint64_t accumulation = options_.shape.accumulation;
    if (index / accumulation != number) {
      number = index / accumulation;
      step = deal(begin + number * options_.shape.global());
    }
    return make(step.micro_batch(index % accumulation, rank));
  };
}

PackedBatch BatchMaker::make_eval(uint64_t first, uint64_t count) const {
  PackedBatch batch;
  batch.cu_seqlens.push_back(0);
  const uint64_t end =
      first + std::min(count, samples() - std::min(first, samples()));
  for (uint64_t sample = first; sample < end; ++sample) {
    append(sample, sample, eval_masker_, batch);
  }
  return batch;
}

} // namespace deepspeed::text
