// Matrix products in the compute dtype.
//
// By kernels::matmul, which sums in fp32 and rounds once, or by libtorch's
// product where that is faster: bf16 on a CPU with tiles (AMX), and fp32 on
// Intel's CPUs. docs/benchmarks.md has the figures.
#pragma once

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::bert {

// Whether products of this dtype are made by kernels::matmul.
bool has_own_product(at::ScalarType dtype);

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

// gelu(bias + a b), and the derivative of GELU there.
struct Activation {
  at::Tensor value;
  at::Tensor derivative;
};
Activation gelu_product(
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b);

// gate * (a b), element by element: back through GELU.
at::Tensor gated_product(
    const at::Tensor& gate,
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
