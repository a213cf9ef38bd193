// Matrix products in the compute dtype.
//
// fp32, and bf16 on a CPU with instructions for it: libtorch's product. fp16,
// and bf16 on other CPUs: kernels::matmul, which widens while it packs, sums in
// fp32 and rounds once (libtorch's own product takes 4 to 9 times as long
// there).
#pragma once

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::bert {

// Whether products of this dtype are made in fp32, by kernels::matmul.
bool is_widened(at::ScalarType dtype);

// a b * factor, in the dtype of a.
at::Tensor product(
    const at::Tensor& a, // [rows, inner]
    const at::Tensor& b, // [inner, columns], in the dtype of a
    float factor = 1.0f);

// out = bias + a b; `out` may be a slice of columns.
void bias_product_out(
    at::Tensor& out,
    const at::Tensor& bias, // [columns]
    const at::Tensor& a,
    const at::Tensor& b);

// sum += a b
void add_product_(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

// out = factor * a b, or out += factor * a b; `out` may be fp32 whatever the
// dtype of a and b.
void product_into(
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    float factor,
    bool add);

} // namespace deepspeed::bert
