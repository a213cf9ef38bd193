// Layer normalization (Ba et al., 2016) fused with what stands before it:
// y = LayerNorm(residual + dropout(x + bias)) * gamma + beta.
//
// T is float, base::BFloat16 or base::Float16; matrices are row-major [rows,
// hidden] without gaps; all arithmetic is in float. Each call works on a range,
// so callers cut the work among threads; the result does not depend on the
// cuts. Mean and variance take two passes over the row (no cancellation). Row i
// uses tokens.visit[i], tokens.position[i], which are not read without dropout.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::kernels {

template <typename T>
struct LayerNormForward {
  int64_t hidden = 0;
  float eps = 1e-5f;
  const T* x = nullptr; // [rows, hidden]
  const T* bias = nullptr; // [hidden] or null
  const T* residual = nullptr; // [rows, hidden] or null
  const T* gamma = nullptr; // [hidden]
  const T* beta = nullptr; // [hidden]
  Dropout dropout; // of x + bias
  TokenKeys tokens;

  T* y = nullptr; // [rows, hidden]; may be x or residual
  T* normalized = nullptr; // [rows, hidden], before gamma and beta; or null
  float* rstd = nullptr; // [rows], 1 / sqrt(variance + eps); or null
};

// Rows [begin, end).
template <typename T>
void layer_norm_forward(
    const LayerNormForward<T>& args,
    int64_t begin,
    int64_t end);

template <typename T>
struct LayerNormBackward {
  int64_t hidden = 0;
  const T* dy = nullptr; // [rows, hidden]
  const T* normalized = nullptr; // of the forward pass
  const float* rstd = nullptr; // of the forward pass
  const T* gamma = nullptr; // [hidden]
  Dropout dropout; // the one of the forward pass
  TokenKeys tokens;

  // Gradient of the sum before normalization, that is of `residual`; may be
  // dy. Null when nobody wants it.
  T* dresidual = nullptr;
  // Gradient of x (and, summed over rows, of bias); may be dresidual when there
  // is no dropout. Null when nobody wants it.
  T* dx = nullptr;
};

// Rows [begin, end).
template <typename T>
void layer_norm_backward(
    const LayerNormBackward<T>& args,
    int64_t begin,
    int64_t end);

template <typename T>
struct LayerNormParameterGradients {
  int64_t rows = 0;
  int64_t hidden = 0;
  const T* dy = nullptr; // [rows, hidden]; not yet overwritten by dresidual!
  const T* normalized = nullptr; // [rows, hidden]
  bool accumulate = false; // add to what dgamma and dbeta hold
  float* dgamma = nullptr; // [hidden]
  float* dbeta = nullptr; // [hidden]
};

// Columns [begin, end) of dgamma and dbeta, over all rows.
template <typename T>
void layer_norm_backward_params(
    const LayerNormParameterGradients<T>& args,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::kernels
