// The shape of a RoBERTa masked language model.
#pragma once

#include <cstdint>

namespace deepspeed::bert {

// Names as in transformers' config.json; defaults are HelloDeepSpeed's model.
struct RobertaConfig {
  int64_t vocab_size = 50265;
  int64_t max_position_embeddings = 514; // two more than the longest sequence
  int64_t type_vocab_size = 1;
  int64_t hidden_size = 256;
  int64_t num_hidden_layers = 6;
  int64_t num_attention_heads = 8;
  int64_t intermediate_size = 512;
  double dropout = 0.1; // of hidden states and of attention probabilities
  double layer_norm_eps = 1e-5;
  double initializer_range = 0.02;
  int64_t pad_token_id = 1;
  bool pooler = true; // unused by the loss; kept for the files' sake

  int64_t head_dim() const {
    return hidden_size / num_attention_heads;
  }
};

// Of a model of this shape: tied weights once.
int64_t parameter_count(const RobertaConfig& config);

// Throws Error(config) naming the value that is out of range.
void validate(const RobertaConfig& config);

} // namespace deepspeed::bert
