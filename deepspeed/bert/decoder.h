// The decoder, whose matrix has a row for each word, with the softmax
// cross-entropy of its logits. Both ways it goes through the matrix a few rows
// at a time: the logits, the matrix, its gradient and what an optimizer keeps
// of it pass through the cache once.
#pragma once

#include "deepspeed/bert/functional.h"

namespace deepspeed::bert {

// Shapes: m rows, each predicting a word; h hidden, v vocabulary.
struct DecoderInputs {
  at::Tensor x; // [m, h], m > 0
  at::Tensor weight; // [v, h]
  at::Tensor bias; // [v]
  const std::vector<int32_t>* labels = nullptr; // of the m rows
};

// What backward needs, see kernels/softmax_block.h.
struct SavedDecoder {
  at::Tensor exponentials; // [v, m padded], in the dtype of x
  at::Tensor factors; // [slices, m padded], fp32
};

// Cross-entropy of each row of x weight^T + bias: [m], fp32.
at::Tensor decoder_losses(const DecoderInputs& inputs, SavedDecoder& saved);

// Where the gradients go.
struct DecoderTargets {
  GradientTarget weight;
  flat::RowConsumer* consumer = nullptr; // begun; takes it in place of `weight`
  GradientTarget bias;
};

// The gradients of scale * the sum of the losses; returns that of x. By our own
// products, and in the same order whoever takes the rows and however many
// threads there are.
at::Tensor decoder_backward(
    const DecoderInputs& inputs,
    const SavedDecoder& saved,
    float scale,
    const DecoderTargets& targets);

} // namespace deepspeed::bert
