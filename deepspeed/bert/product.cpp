// Matrix products in the compute dtype.
#include "deepspeed/bert/product.h"

namespace deepspeed::bert {
namespace {

bool is_half(const at::Tensor& x) {
  return x.scalar_type() == at::kHalf;
}

} // namespace

at::Tensor widened(const at::Tensor& x) {
  return is_half(x) ? x.to(at::kFloat) : x;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, float factor) {
  at::Tensor result = at::mm(widened(a), widened(b));
  if (factor != 1.0f) {
    result.mul_(factor);
  }
  return is_half(a) ? result.to(at::kHalf) : result;
}

void bias_product_out(
    at::Tensor& out,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) {
  if (is_half(a)) {
    out.copy_(at::addmm(widened(bias), widened(a), widened(b)));
  } else {
    at::addmm_out(out, bias, a, b);
  }
}

void add_product_(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (is_half(sum)) {
    sum.copy_(widened(sum).addmm_(widened(a), widened(b)));
  } else {
    sum.addmm_(a, b);
  }
}

} // namespace deepspeed::bert
