// Which products are made, for the operations on the CPU.
//
// By kernels::matmul, which sums in fp32 and rounds once, or by libtorch's
// product where that is faster: fp32 on Intel's CPUs. docs/benchmarks.md has
// the figures. The environment variable DS_PRODUCTS (own, libtorch) decides for
// fp32 and bf16; fp16 is always ours.
#pragma once

#include <optional>

#include "deepspeed/flat/parallel.h"

namespace deepspeed::ops::cpu {

// Whether products of this dtype are made by kernels::matmul. Throws
// base::Error for a bad DS_PRODUCTS.
bool has_own_product(at::ScalarType dtype);

// From now on as DS_PRODUCTS would; null: as it is set. Not while products are
// made.
void force_own_products(std::optional<bool> own);

// As the operations: our own product is added to `tasks`, libtorch's is made at
// once. out = a b, or out += a b; `out` may be fp32 whatever the dtype of a and
// b.
void product_into(
    flat::TaskList& tasks,
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    bool add);

} // namespace deepspeed::ops::cpu
