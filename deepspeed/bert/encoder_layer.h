// One RoBERTa encoder layer (post-LayerNorm) over packed sequences.
#pragma once

#include <memory>

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/block.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::bert {

// Positions in BlockParameters, in the order of module.parameters().
enum LayerParameter : size_t {
  kQueryWeight, // [hidden, hidden]
  kQueryBias, // [hidden]
  kKeyWeight,
  kKeyBias,
  kValueWeight,
  kValueBias,
  kAttentionOutputWeight, // [hidden, hidden]
  kAttentionOutputBias,
  kAttentionNormWeight, // [hidden]
  kAttentionNormBias,
  kIntermediateWeight, // [intermediate, hidden]
  kIntermediateBias, // [intermediate]
  kOutputWeight, // [hidden, intermediate]
  kOutputBias,
  kOutputNormWeight,
  kOutputNormBias,
  kLayerParameters,
};

// What one forward pass of one layer is made with.
struct LayerArguments {
  const BlockParameters* parameters = nullptr;
  std::shared_ptr<const Batch> batch;
  const OutputTokens* outputs = nullptr; // of `batch`
  int64_t heads = 1;
  float layer_norm_eps = 1e-5f;
  kernels::Dropout attention_dropout; // of the probabilities
  kernels::Dropout attention_output_dropout;
  kernels::Dropout output_dropout;
};

// [tokens, hidden] -> [outputs, hidden]:
//   a = LayerNorm(x + dropout(attention(x) Wo^T + bo))
//   y = LayerNorm(a + dropout(gelu(a W1^T + b1) W2^T + b2))
// Of the tokens without an output only keys and values are computed.
std::shared_ptr<Block> make_encoder_layer(const LayerArguments& arguments);

} // namespace deepspeed::bert
