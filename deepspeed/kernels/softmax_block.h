// Softmax over a large vocabulary whose logits stand transposed, a row for each
// word and a column for each token, and are made a block of words at a time.
//
// Each block has exponentials relative to its own maxima; factors that are
// known when all blocks are there make probabilities of them (M. Milakov and N.
// Gimelshein, Online normalizer calculation for softmax, 2018). So the logits
// are read while they are in the cache, and never written to memory.
//
// T is float, base::BFloat16 or base::Float16; arithmetic in float. Safe for
// any logits: what is not finite makes a column NaN as in PyTorch. Columns are
// padded to a multiple of kSoftmaxColumns.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

constexpr int64_t kSoftmaxColumns = 32;

template <typename T>
struct SoftmaxBlock {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0; // `columns`, padded
  const float* logits = nullptr; // [rows, stride]
  const T* bias = nullptr; // [rows], added to each row's logits
  // Multiplies the exponentials that are stored. In fp16 the small ones would
  // be subnormal or 0: there, 2^15 keeps them (and 2^15 itself fits).
  float factor = 1.0f;

  // [rows, stride]: factor * exp(logit + bias - max of the column); zero in the
  // padding.
  T* exponentials = nullptr;
  float* max = nullptr; // [stride]
  float* sum = nullptr; // [stride]: of the exponentials, without `factor`
};

template <typename T>
void softmax_block(const SoftmaxBlock<T>& args);

// log-sum-exp of each column: the sum of the two. Each [stride].
struct SoftmaxTotals {
  float* max = nullptr;
  float* log_sum = nullptr; // of exp(logit + bias - max)
};

// Turns the maxima of all blocks, [blocks, stride], into what the exponentials
// of each block are multiplied with to be probabilities.
void softmax_factors(
    int64_t blocks,
    int64_t stride,
    float* max,
    const float* sum,
    const SoftmaxTotals& totals);

// sums[r] = scale * the sum over columns of x[r, c] * weights[c], or added to
// what is there. x: [rows, stride].
template <typename T>
void weighted_row_sums(
    const T* x,
    int64_t rows,
    int64_t stride,
    const float* weights,
    float scale,
    bool add,
    float* sums);

} // namespace deepspeed::kernels
