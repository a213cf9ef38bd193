// Matrix products in the compute dtype.
//
// Operands in fp16, and in bf16 on a CPU without instructions for it, are
// widened and multiplied in fp32, and the result is rounded once: libtorch's
// own product takes 4 to 9 times as long as that in fp32 there, the conversions
// up to as long again.
#pragma once

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::bert {

// As fp32 where products are made in fp32; else as it is.
at::Tensor widened(const at::Tensor& x);

// a b * factor, in the dtype of a.
at::Tensor product(
    const at::Tensor& a, // [rows, inner]
    const at::Tensor& b, // [inner, columns]
    float factor = 1.0f);

// out = bias + a b; `out` may be a slice of columns.
void bias_product_out(
    at::Tensor& out,
    const at::Tensor& bias, // [columns]
    const at::Tensor& a,
    const at::Tensor& b);

// sum += a b
void add_product_(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

} // namespace deepspeed::bert
