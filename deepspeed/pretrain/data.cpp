// The text of a run as batches: tokenizer, token caches, order, masks.
#include "deepspeed/pretrain/data.h"

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/bert/config.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/text/data_lookup.h"

namespace deepspeed::pretrain {
namespace {

TextSource open_text(
    const std::string& path,
    const report::Settings& settings,
    const std::shared_ptr<const text::Tokenizer>& tokenizer,
    int64_t ranks) {
  text::CacheRequest request;
  request.source = path;
  request.text_column = settings.data.text_column;
  request.cache_dir = text::default_cache_dir();
  request.threads = static_cast<int>(flat::threads());
  bool said = false;
  request.progress = [&](uint64_t, uint64_t) {
    if (!said) {
      base::log_info("tokenizing " + path + " (once: the ids are cached)");
    }
    said = true;
  };
  text::BatchOptions options;
  options.seed = static_cast<uint64_t>(settings.run.seed);
  options.max_seq_length = static_cast<uint32_t>(settings.data.max_seq_length);
  options.shape = {
      static_cast<uint64_t>(settings.optimizer.batch_size),
      static_cast<uint64_t>(settings.optimizer.gradient_accumulation_steps),
      static_cast<uint64_t>(ranks)};
  options.mask = {
      settings.data.mask_prob,
      settings.data.random_replace_prob,
      settings.data.unmask_replace_prob};
  TextSource source;
  source.path = path;
  source.cache = std::make_unique<const text::TokenCache>(
      text::open_or_build(request, tokenizer));
  source.batches = std::make_unique<const text::BatchMaker>(
      *source.cache, *tokenizer, options);
  return source;
}

void check_tokenizer(
    const text::Tokenizer& tokenizer,
    const std::string& folder,
    int64_t vocab_size) {
  if (tokenizer.vocab_size() > vocab_size) {
    throw base::Error(
        base::ExitCode::config,
        "the tokenizer has " + std::to_string(tokenizer.vocab_size()) +
            " ids, but the model's vocabulary has " +
            std::to_string(vocab_size),
        folder,
        "use a tokenizer with at most that many ids");
  }
  // RoBERTa counts positions from the id of <pad> + 1; ours start at 2.
  const int64_t pad = bert::RobertaConfig{}.pad_token_id;
  if (tokenizer.special().pad != pad) {
    throw base::Error(
        base::ExitCode::config,
        "the id of <pad> is " + std::to_string(tokenizer.special().pad) +
            ", but RoBERTa's is " + std::to_string(pad),
        folder,
        "number the special tokens as roberta-base does");
  }
}

} // namespace

Data::Data(
    const report::Settings& settings,
    int64_t vocab_size,
    int64_t ranks) {
  const std::string folder =
      text::find_tokenizer(settings.data.tokenizer, settings.data.data_dir);
  tokenizer_ = text::Tokenizer::load(folder);
  check_tokenizer(*tokenizer_, folder, vocab_size);
  const text::Dataset dataset =
      text::find_dataset(settings.data.dataset, settings.data.data_dir);
  train_ = open_text(dataset.train, settings, tokenizer_, ranks);
  const std::string& held_out = settings.data.validation_file.empty()
      ? dataset.valid
      : settings.data.validation_file;
  if (!held_out.empty()) {
    validation_ = open_text(held_out, settings, tokenizer_, ranks);
  }
}

} // namespace deepspeed::pretrain
