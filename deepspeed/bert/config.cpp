// The shape of a RoBERTa masked language model.
#include "deepspeed/bert/config.h"

#include <string>

#include "deepspeed/base/error.h"

namespace deepspeed::bert {
namespace {

void require(bool good, const std::string& what) {
  if (!good) {
    throw base::Error(
        base::ExitCode::config, what, "the configuration of the model", "");
  }
}

void require_range(
    const char* name,
    int64_t value,
    int64_t lowest,
    int64_t highest) {
  require(
      value >= lowest && value <= highest,
      std::string(name) + " is " + std::to_string(value) +
          ", but must be between " + std::to_string(lowest) + " and " +
          std::to_string(highest));
}

} // namespace

int64_t parameter_count(const RobertaConfig& config) {
  const int64_t h = config.hidden_size;
  const int64_t f = config.intermediate_size;
  const int64_t square = h * h + h; // a linear layer from h to h
  const int64_t embeddings =
      (config.vocab_size + config.max_position_embeddings +
       config.type_vocab_size) *
          h +
      2 * h;
  const int64_t layer = 4 * square + 2 * h * f + f + h + 4 * h;
  const int64_t head = square + 2 * h + config.vocab_size;
  return embeddings + config.num_hidden_layers * layer + head +
      (config.pooler ? square : 0);
}

void validate(const RobertaConfig& config) {
  require_range("vocab_size", config.vocab_size, 5, 1 << 24);
  require_range(
      "max_position_embeddings", config.max_position_embeddings, 5, 1 << 16);
  require_range("type_vocab_size", config.type_vocab_size, 1, 16);
  require_range("hidden_size", config.hidden_size, 1, 1 << 16);
  require_range("num_hidden_layers", config.num_hidden_layers, 1, 1024);
  require_range("num_attention_heads", config.num_attention_heads, 1, 1 << 12);
  require_range("intermediate_size", config.intermediate_size, 1, 1 << 18);
  require(
      config.hidden_size % config.num_attention_heads == 0,
      "hidden_size " + std::to_string(config.hidden_size) +
          " is not divisible by num_attention_heads " +
          std::to_string(config.num_attention_heads));
  require(
      config.dropout >= 0 && config.dropout < 1,
      "dropout is " + std::to_string(config.dropout) +
          ", but must be in [0, 1)");
  require(config.layer_norm_eps > 0, "layer_norm_eps must be positive");
}

} // namespace deepspeed::bert
