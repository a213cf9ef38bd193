// The text of a run as batches: tokenizer, token caches, order, masks.
#include "deepspeed/pretrain/data.h"

#include <chrono>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/bert/config.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/machine/stop_signal.h"
#include "deepspeed/text/data_lookup.h"

namespace deepspeed::pretrain {
namespace {

// Checked by the process group, which has the same patience.
std::chrono::milliseconds patience() {
  const char* minutes = std::getenv("DEEPSPEED_TIMEOUT");
  return minutes == nullptr || *minutes == '\0'
      ? text::CacheRequest{}.patience
      : std::chrono::milliseconds(
            static_cast<int64_t>(std::strtod(minutes, nullptr) * 60'000) + 1);
}

TextSource open_text(
    const text::Source& files,
    const settings::Settings& settings,
    const std::shared_ptr<const text::Tokenizer>& tokenizer,
    int64_t ranks) {
  text::CacheRequest request;
  request.source = files;
  request.text_column = settings.data.text_column;
  request.cache_dir = text::default_cache_dir();
  request.threads = static_cast<int>(flat::threads());
  request.patience = patience();
  request.stopped = [] { return machine::stop_signal() != 0; };
  bool said = false;
  request.progress = [&](uint64_t, uint64_t) {
    if (!said) {
      base::log_info(
          "tokenizing " + files.path + " (once: the ids are cached)");
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
  options.dealing = settings.optimizer.balance_batches
      ? text::Dealing::balanced
      : text::Dealing::in_order;
  options.mask = {
      settings.data.mask_prob,
      settings.data.random_replace_prob,
      settings.data.unmask_replace_prob};
  TextSource source;
  source.path = files.path;
  source.files = text::files_text(files);
  if (text::has_columns(files)) {
    source.files += ", field \"" + settings.data.text_column + "\"";
  }
  for (const text::SourceFile& file : files.files) {
    source.bytes += file.stamp.size;
  }
  source.cache = std::make_unique<const text::TokenCache>(
      text::open_or_build(request, tokenizer));
  source.batches = std::make_unique<const text::BatchMaker>(
      *source.cache, *tokenizer, options);
  return source;
}

void check_text_column(
    const std::string& column,
    const text::Source& train,
    const text::Source& held_out) {
  if (column != settings::DataSettings{}.text_column &&
      !text::has_columns(train) && !text::has_columns(held_out)) {
    throw base::Error(
        base::ExitCode::config,
        "--text_column " + column + " has no effect: the data set has " +
            text::files_text(train),
        train.path,
        "leave it out; JSON lines are named .jsonl, .ndjson or .json, tables "
        ".csv or .tsv");
  }
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

// "11,000 bytes then, 12,000 now"
std::string data_difference(
    const settings::Settings& stored,
    const settings::Settings& now) {
  if (stored.data.text_column != now.data.text_column) {
    return "text_column was " + stored.data.text_column + ", is " +
        now.data.text_column;
  }
  const int64_t was = stored.trained_data.dataset_bytes;
  const int64_t is = now.trained_data.dataset_bytes;
  const std::string sizes = base::format_count(was) + " bytes then, " +
      base::format_count(is) + " now";
  return was == is ? "as many bytes, but another text or other file names"
      : is > was   ? "it has grown, " + sizes
                   : sizes;
}

} // namespace

Data::Data(
    const settings::Settings& settings,
    int64_t vocab_size,
    int64_t ranks) {
  const std::string folder =
      text::find_tokenizer(settings.data.tokenizer, settings.data.data_dir);
  tokenizer_ = text::Tokenizer::load(folder);
  check_tokenizer(*tokenizer_, folder, vocab_size);
  text::Dataset dataset = text::dataset_at(
      text::find_dataset(settings.data.dataset, settings.data.data_dir));
  const std::string& validation_file = settings.data.validation_file;
  if (!validation_file.empty()) {
    text::evaluate_with(text::held_out_at(validation_file), dataset);
  }
  check_text_column(settings.data.text_column, dataset.train, dataset.valid);
  train_ = open_text(dataset.train, settings, tokenizer_, ranks);
  if (!dataset.valid.files.empty()) {
    validation_ = open_text(dataset.valid, settings, tokenizer_, ranks);
  }
  left_out_ = std::move(dataset.left_out);
}

settings::TrainedData Data::identity() const {
  settings::TrainedData identity;
  identity.dataset_hash = train_.cache->key();
  identity.dataset_bytes = static_cast<int64_t>(train_.bytes);
  if (validation_) {
    identity.validation_hash = validation_->cache->key();
  }
  identity.tokenizer_hash = tokenizer_->fingerprint();
  return identity;
}

void check_trained_data(
    const settings::Settings& stored,
    const settings::Settings& now) {
  const settings::TrainedData& was = stored.trained_data;
  const settings::TrainedData& is = now.trained_data;
  if (was.dataset_hash.empty() || was.tokenizer_hash.empty()) {
    base::log_info(
        "hparams.json does not say what the data set was when the run began: "
        "it is taken as it is now: " +
        now.data.dataset);
    return;
  }
  if (was.tokenizer_hash != is.tokenizer_hash) {
    throw base::Error(
        base::ExitCode::config,
        "the tokenizer is not the one that this model was trained with",
        now.data.tokenizer,
        "name the old one with --tokenizer, or start a new run");
  }
  if (was.validation_hash != is.validation_hash) {
    base::log_info("changed: the text for evaluation is another one");
  }
  if (was.dataset_hash == is.dataset_hash) {
    return;
  }
  const std::string difference = data_difference(stored, now);
  if (now.data.allow_change == "dataset") {
    base::log_info("changed: the data set: " + difference);
    return;
  }
  throw base::Error(
      base::ExitCode::config,
      "the data set is not the one that this run was trained on: " + difference,
      now.data.dataset,
      "name the old one with --dataset, or go on with this one: "
      "--allow_change dataset");
}

} // namespace deepspeed::pretrain
