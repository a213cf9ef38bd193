// The text of a run as batches: tokenizer, token caches, order, masks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/bert/batch.h"
#include "deepspeed/settings/settings.h"
#include "deepspeed/text/batch.h"
#include "deepspeed/text/source_files.h"
#include "deepspeed/text/token_cache.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::pretrain {

// A tokenized text and the batches made of it.
struct TextSource {
  std::string path;
  std::string files; // "3 files of JSON lines"
  uint64_t bytes = 0; // of its files
  std::unique_ptr<const text::TokenCache> cache;
  std::unique_ptr<const text::BatchMaker> batches;
};

// Constant after construction, safe from many threads.
class Data {
 public:
  // Opens tokenizer and texts, tokenizing what is not in the cache yet; says so
  // on standard error. Error(no_input), Error(data), or Error(config) if the
  // tokenizer does not fit the model's vocabulary of `vocab_size` or
  // --text_column has no effect; Error(stopped) after a signal. A step's batch
  // is divided over `ranks`.
  Data(const settings::Settings& settings, int64_t vocab_size, int64_t ranks);

  std::shared_ptr<const text::Tokenizer> tokenizer() const {
    return tokenizer_;
  }
  const TextSource& train() const {
    return train_;
  }
  // What the data set's folder holds and nobody reads.
  const std::vector<text::LeftOut>& left_out() const {
    return left_out_;
  }
  // What hparams.json says of all this.
  settings::TrainedData identity() const;
  // Null without a validation text.
  const TextSource* validation() const {
    return validation_ ? &*validation_ : nullptr;
  }

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  TextSource train_;
  std::optional<TextSource> validation_;
  std::vector<text::LeftOut> left_out_;
};

// Compares what a resumed run was trained on with what it has now, and says
// what differs. Error(config) for another data set that `now` does not allow,
// and for another tokenizer.
void check_trained_data(
    const settings::Settings& stored,
    const settings::Settings& now);

} // namespace deepspeed::pretrain
