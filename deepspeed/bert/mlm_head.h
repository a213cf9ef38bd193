// The masked-language-model head and its loss as one block.
#pragma once

#include <memory>

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/block.h"

namespace deepspeed::bert {

// Positions in BlockParameters.
enum HeadParameter : size_t {
  kDecoderBias, // [vocabulary]
  kDenseWeight, // [hidden, hidden]
  kDenseBias,
  kHeadNormWeight, // [hidden]
  kHeadNormBias,
  kDecoderWeight, // [vocabulary, hidden], tied to the word embeddings
  kHeadParameters,
};

struct HeadArguments {
  const BlockParameters* parameters = nullptr;
  std::shared_ptr<const Batch> batch;
  float layer_norm_eps = 1e-5f;
};

// [masked, hidden], the hidden states of the masked tokens -> scalar, fp32: the
// mean of their cross-entropy. Without a masked token it is 0, whatever the
// input.
std::shared_ptr<Block> make_mlm_head(const HeadArguments& arguments);

// The parts of an evaluation.
struct HeadPrediction {
  at::Tensor losses; // [masked], fp32
  at::Tensor predicted; // [masked], int32: the most probable ids
};
HeadPrediction predict(
    const HeadArguments& arguments,
    const at::Tensor& hidden_states); // [masked, hidden]

// [masked, vocabulary], compute dtype: decoder output with its bias.
at::Tensor head_logits(
    const HeadArguments& arguments,
    const at::Tensor& hidden_states);

} // namespace deepspeed::bert
