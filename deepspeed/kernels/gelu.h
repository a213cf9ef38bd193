// GELU with the exact error function (Hendrycks & Gimpel, 2016), fused with the
// bias before it: y = u * Phi(u), u = x + bias.
//
// T is float, base::BFloat16 or base::Float16; matrices are [rows, columns]
// without gaps; arithmetic in float; [begin, end) are rows, and results do not
// depend on how they are cut. Infinities give what PyTorch gives: gelu(-inf) =
// NaN.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

template <typename T>
struct BiasGelu {
  int64_t columns = 0;
  const T* x = nullptr; // [rows, columns]
  const T* bias = nullptr; // [columns] or null
  T* y = nullptr; // [rows, columns]; may be x
  // dy/du = Phi(u) + u phi(u), which is all that backward needs; may be x when
  // y is not. Null in evaluation.
  T* derivative = nullptr; // [rows, columns]
};

template <typename T>
void bias_gelu_forward(const BiasGelu<T>& args, int64_t begin, int64_t end);

// dx = dy * derivative; dx may be dy or derivative.
template <typename T>
void gelu_backward(
    int64_t columns,
    const T* dy,
    const T* derivative,
    T* dx,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::kernels
