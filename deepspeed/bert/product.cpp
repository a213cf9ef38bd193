// Matrix products in the compute dtype.
#include "deepspeed/bert/product.h"

namespace deepspeed::bert {
namespace {

bool has_bf16_products() {
  static const bool has = __builtin_cpu_supports("avx512bf16") ||
      __builtin_cpu_supports("amx-bf16");
  return has;
}

// Whether products of this dtype are made in fp32.
bool is_widened(const at::Tensor& x) {
  return x.scalar_type() == at::kHalf ||
      (x.scalar_type() == at::kBFloat16 && !has_bf16_products());
}

} // namespace

at::Tensor widened(const at::Tensor& x) {
  return is_widened(x) ? x.to(at::kFloat) : x;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, float factor) {
  at::Tensor result = at::mm(widened(a), widened(b));
  if (factor != 1.0f) {
    result.mul_(factor);
  }
  return is_widened(a) ? result.to(a.scalar_type()) : result;
}

void bias_product_out(
    at::Tensor& out,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) {
  if (is_widened(a)) {
    out.copy_(at::addmm(widened(bias), widened(a), widened(b)));
  } else {
    at::addmm_out(out, bias, a, b);
  }
}

void add_product_(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (is_widened(sum)) {
    sum.copy_(widened(sum).addmm_(widened(a), widened(b)));
  } else {
    sum.addmm_(a, b);
  }
}

} // namespace deepspeed::bert
