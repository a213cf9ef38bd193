// Masks for masked language modelling, by HelloDeepSpeed's rule.
#include "deepspeed/text/masking.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

void check_probability(double value, std::string_view flag) {
  if (!(value >= 0.0 && value <= 1.0)) { // NaN too
    throw base::Error(
        base::ExitCode::usage,
        "a probability lies between 0 and 1, not at " + std::to_string(value),
        std::string(flag),
        "");
  }
}

} // namespace

Masker::Masker(
    const MaskOptions& options,
    const MaskVocabulary& vocabulary,
    base::PhiloxKey key)
    : options_(options), vocabulary_(vocabulary), key_(key) {
  check_probability(options.mask_prob, "--mask_prob");
  check_probability(options.random_replace_prob, "--random_replace_prob");
  check_probability(options.unmask_replace_prob, "--unmask_replace_prob");
  check_probability(
      options.random_replace_prob + options.unmask_replace_prob,
      "--random_replace_prob + --unmask_replace_prob");
  std::vector<int32_t>& special = vocabulary_.special;
  std::sort(special.begin(), special.end());
  special.erase(std::unique(special.begin(), special.end()), special.end());
  const bool in_range = special.empty() ||
      (special.front() >= 0 && special.back() < vocabulary.vocab_size);
  if (!in_range ||
      static_cast<int64_t>(special.size()) >= vocabulary.vocab_size) {
    throw base::Error(
        base::ExitCode::data,
        "the vocabulary of " + std::to_string(vocabulary.vocab_size) +
            " ids has no ordinary token, or special ids out of range",
        "",
        "");
  }
}

// What a chosen token with the id `id` becomes.
int32_t Masker::replacement(int32_t id, base::PhiloxStream& stream) const {
  const double other =
      options_.random_replace_prob + options_.unmask_replace_prob;
  if (stream.uniform() >= other) {
    return vocabulary_.mask;
  }
  if (stream.uniform() * other < options_.unmask_replace_prob) {
    return id;
  }
  const size_t ordinary =
      static_cast<size_t>(vocabulary_.vocab_size) - vocabulary_.special.size();
  auto token =
      static_cast<int32_t>(stream.below(static_cast<uint32_t>(ordinary)));
  // The token-th of the ordinary ids: step over each special id below it.
  for (int32_t special : vocabulary_.special) {
    token += special <= token ? 1 : 0;
  }
  return token;
}

void Masker::mask(
    std::span<int32_t> ids,
    uint64_t visit,
    int32_t offset,
    std::vector<int32_t>& masked,
    std::vector<int32_t>& labels) const {
  if (ids.size() <= 2) {
    return;
  }
  const auto inner = static_cast<uint32_t>(ids.size() - 2);
  base::PhiloxStream stream(key_, visit);
  uint32_t left = std::max(
      static_cast<uint32_t>(options_.mask_prob * inner + stream.uniform()), 1u);
  // Selection sampling (Knuth, TAOCP volume 2, 3.4.2, algorithm S): every set
  // of that size is as likely, and it comes out sorted.
  for (uint32_t i = 0; i < inner && left > 0; ++i) {
    if (stream.below(inner - i) < left) {
      const size_t index = i + 1;
      masked.push_back(offset + static_cast<int32_t>(index));
      labels.push_back(ids[index]);
      ids[index] = replacement(ids[index], stream);
      --left;
    }
  }
}

} // namespace deepspeed::text
