// Back through the decoder, whose matrix has a row for each word: the products
// are made a few rows at a time, so that the matrix, its gradient and what an
// optimizer keeps of it pass through the cache once.
#pragma once

#include "deepspeed/bert/functional.h"

namespace deepspeed::bert {

// logits = x W^T, with the gradient of the loss to them.
struct DecoderGradient {
  at::Tensor logits; // [rows, vocabulary]: the gradient, over `factor`
  float factor = 1.0f;
  at::Tensor x; // [rows, hidden]
  at::Tensor weight; // W, [vocabulary, hidden]
};

// Where the gradient of W goes.
struct DecoderTarget {
  GradientTarget weight;
  flat::RowConsumer* consumer = nullptr; // begun; takes it in place of `weight`
};

// Writes factor * logits^T x, and returns factor * logits W, the gradient of x.
// By our own products, and in the same order whoever takes the rows and however
// many threads there are.
at::Tensor decoder_backward(
    const DecoderGradient& gradient,
    const DecoderTarget& target);

} // namespace deepspeed::bert
