// Fills the <mask> of a sentence with the most probable tokens of a model.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/bert/batch.h"
#include "deepspeed/pretrain/model_files.h"
#include "programs/command_line.h"

using namespace deepspeed;

namespace {

struct Arguments {
  std::string model;
  std::string text;
  std::string data_dir;
  int top_k = 5;
  bool newest_whole = false;
};

// <s> text </s> with every <mask> as a token to predict.
text::PackedBatch make_batch(
    const text::Tokenizer& tokenizer,
    text::Encoder& encoder,
    const std::string& text,
    int64_t max_length) {
  text::PackedBatch batch;
  batch.ids.push_back(tokenizer.special().bos);
  encoder.encode(text, batch.ids);
  batch.ids.push_back(tokenizer.special().eos);
  const auto length = static_cast<int32_t>(batch.ids.size());
  if (length > max_length) {
    throw base::Error(
        base::ExitCode::data,
        "the text has " + std::to_string(length) + " tokens, the model takes " +
            std::to_string(max_length),
        "",
        "shorten it");
  }
  for (int32_t i = 0; i < length; ++i) {
    batch.positions.push_back(2 + i);
    if (batch.ids[i] == tokenizer.special().mask) {
      batch.masked.push_back(i);
      batch.labels.push_back(0);
    }
  }
  if (batch.masked.empty()) {
    throw base::Error(
        base::ExitCode::usage,
        "there is no <mask> in the text",
        "\"" + text + "\"",
        "write <mask> where a word is to be guessed");
  }
  batch.cu_seqlens = {0, length};
  batch.visits = {0};
  return batch;
}

int fill(const Arguments& arguments) {
  pretrain::LoadedModel loaded = pretrain::load_model(
      arguments.model, arguments.data_dir, arguments.newest_whole);
  text::Encoder encoder(loaded.tokenizer);
  const auto batch = std::make_shared<const bert::Batch>(make_batch(
      *loaded.tokenizer,
      encoder,
      arguments.text,
      loaded.model->config().max_position_embeddings - 2));
  // Outputs beyond the tokenizer's ids stand for nothing.
  const int64_t ids_known = loaded.tokenizer->vocab_size();
  const at::Tensor logits = loaded.model->logits(batch).to(at::kFloat);
  if (ids_known < logits.size(1)) {
    base::log_info(
        "the model has " + std::to_string(logits.size(1)) +
        " outputs, the tokenizer " + std::to_string(ids_known) +
        " ids: only those are offered");
  }
  const at::Tensor probabilities =
      at::softmax(logits.narrow(1, 0, ids_known), 1);
  const auto [values, ids] = probabilities.topk(
      std::min<int64_t>(arguments.top_k, probabilities.size(1)), 1);
  for (size_t mask = 0; mask < batch->packed().masked.size(); ++mask) {
    for (int64_t i = 0; i < values.size(1); ++i) {
      const auto row = static_cast<int64_t>(mask);
      std::vector<int32_t> filled = batch->packed().ids;
      const auto id = static_cast<int32_t>(ids[row][i].item<int64_t>());
      filled[batch->packed().masked[mask]] = id;
      std::printf(
          "%6.2f %%  %-16s %s\n",
          100 * values[row][i].item<double>(),
          ("'" + loaded.tokenizer->decode({&id, 1}) + "'").c_str(),
          loaded.tokenizer
              ->decode(std::span(filled).subspan(1, filled.size() - 2))
              .c_str());
    }
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] {
    Arguments arguments;
    CLI::App app("Fill the <mask> of a sentence with a trained model.");
    app.add_option(
           "model",
           arguments.model,
           "exported model, experiment, or checkpoint: a tag or a file")
        ->required();
    app.add_option("text", arguments.text, "a sentence with <mask>")
        ->required();
    app.add_option("--top_k", arguments.top_k, "guesses for each <mask>")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option(
        "--data_dir", arguments.data_dir, "where tokenizers are looked up");
    app.add_flag(
        "--newest_whole",
        arguments.newest_whole,
        "of an experiment whose newest checkpoint is damaged: the newest one "
        "that is not");
    return run_with_arguments(app, argc, argv, [&] { return fill(arguments); });
  });
}
