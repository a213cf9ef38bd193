// Softmax cross-entropy over a large vocabulary, in place.
//
// T is float, base::BFloat16 or base::Float16; arithmetic in float (the
// log-sum-exp of a row is safe for any logits); rows are independent. The
// caller has checked the labels: 0 <= label < vocabulary.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

template <typename T>
struct CrossEntropy {
  int64_t vocabulary = 0;
  int64_t stride = 0; // elements from one row of logits to the next
  T* logits = nullptr; // [rows, vocabulary]
  const T* bias = nullptr; // [vocabulary], added to each row; or null
  const int32_t* labels = nullptr; // [rows]
  // Multiplies the gradient. In fp16 most probabilities of a large vocabulary
  // would be subnormal or 0: there, 2^15 keeps them (and 2^15 itself fits).
  float gradient_factor = 1.0f;

  float* loss = nullptr; // [rows]: log-sum-exp - logit of the label
  int32_t* predicted = nullptr; // [rows]: first column of the maximum; or null
};

// Rows [begin, end). Overwrites the logits with (softmax - onehot(label)) *
// gradient_factor, the gradient of the row's own loss: the caller folds 1 /
// rows and the loss scale into what it multiplies next.
template <typename T>
void cross_entropy_with_gradient(
    const CrossEntropy<T>& args,
    int64_t begin,
    int64_t end);

// Rows [begin, end). Leaves the logits as they are.
template <typename T>
void cross_entropy(const CrossEntropy<T>& args, int64_t begin, int64_t end);

} // namespace deepspeed::kernels
