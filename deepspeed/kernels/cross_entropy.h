// Softmax cross-entropy over a large vocabulary, for predictions; training has
// softmax_block.h.
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
  const T* logits = nullptr; // [rows, vocabulary]
  const T* bias = nullptr; // [vocabulary], added to each row; or null
  const int32_t* labels = nullptr; // [rows]

  float* loss = nullptr; // [rows]: log-sum-exp - logit of the label
  int32_t* predicted = nullptr; // [rows]: first column of the maximum; or null
};

// Rows [begin, end).
template <typename T>
void cross_entropy(const CrossEntropy<T>& args, int64_t begin, int64_t end);

} // namespace deepspeed::kernels
