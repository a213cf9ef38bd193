// The embedding of RoBERTa as one block.
#pragma once

#include <memory>

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/block.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::bert {

// Positions in BlockParameters, in the order of module.parameters().
enum EmbeddingParameter : size_t {
  kWordEmbeddings, // [vocabulary, hidden], tied to the decoder
  kPositionEmbeddings, // [positions, hidden]
  kTokenTypeEmbeddings, // [types, hidden]
  kEmbeddingNormWeight, // [hidden]
  kEmbeddingNormBias,
  kEmbeddingParameters,
};

struct EmbeddingArguments {
  const BlockParameters* parameters = nullptr;
  std::shared_ptr<const Batch> batch;
  float layer_norm_eps = 1e-5f;
  kernels::Dropout dropout;
};

// -> [tokens, hidden]: dropout(LayerNorm(word + position + type)).
std::shared_ptr<Block> make_embedding(const EmbeddingArguments& arguments);

} // namespace deepspeed::bert
