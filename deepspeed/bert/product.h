// Matrix products in the compute dtype.
//
// By kernels::matmul, which sums in fp32 and rounds once, or by libtorch's
// product where that is faster: fp32 on Intel's CPUs. docs/benchmarks.md has
// the figures. The environment variable DS_PRODUCTS (own, libtorch) decides for
// fp32 and bf16; fp16 is always ours.
#pragma once

#include <optional>
#include <vector>

#include "deepspeed/flat/parallel.h"

namespace deepspeed::bert {

// Whether products of this dtype are made by kernels::matmul. Throws
// base::Error for a bad DS_PRODUCTS.
bool has_own_product(at::ScalarType dtype);

// From now on as DS_PRODUCTS would; null: as it is set. Not while products are
// made.
void force_own_products(std::optional<bool> own);

// The functions below add our own products to `tasks`: results are there when
// that has run, and what they are made of must stay as it is until then.
// libtorch's products are made at once. So an operand must not be the result of
// another product on the same list.

// a b, in the dtype of a.
at::Tensor product(
    flat::TaskList& tasks,
    const at::Tensor& a, // [rows, inner]
    const at::Tensor& b); // [inner, columns], in the dtype of a

// out = bias + a b; `out` may be a slice of columns.
void bias_product_out(
    flat::TaskList& tasks,
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
    flat::TaskList& tasks,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b);

// gate * (a b), element by element: back through GELU.
at::Tensor gated_product(
    flat::TaskList& tasks,
    const at::Tensor& gate,
    const at::Tensor& a,
    const at::Tensor& b);

// sum += a b for all pairs, of equal shapes.
struct Factors {
  at::Tensor a;
  at::Tensor b;
};
void add_products_(
    flat::TaskList& tasks,
    at::Tensor& sum,
    const std::vector<Factors>& pairs);

// out = a b, or out += a b; `out` may be fp32 whatever the dtype of a and b.
void product_into(
    flat::TaskList& tasks,
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    bool add);

// The result of add(tasks), made at once.
template <typename Add>
auto run_now(Add&& add) {
  flat::TaskList tasks;
  auto result = add(tasks);
  tasks.run();
  return result;
}

} // namespace deepspeed::bert
