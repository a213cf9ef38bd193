// Matrix products in the compute dtype.
#include "deepspeed/bert/product.h"

#include "deepspeed/bert/dispatch.h"
#include "deepspeed/bert/functional.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/kernels/matmul.h"

namespace deepspeed::bert {
namespace {

// Intel's processors run libtorch's products (MKL) in fp32 as fast as ours or
// faster; others, AMD's among them, do not. Tiles are libtorch's, too.
bool has_fast_mkl() {
  static const bool has = __builtin_cpu_is("intel");
  return has;
}

// kernels::matmul takes matrices with one stride of 1.
at::Tensor as_operand(const at::Tensor& x) {
  return x.stride(0) == 1 || x.stride(1) == 1 ? x : x.contiguous();
}

template <typename T>
kernels::MatmulOperand<T> operand(const at::Tensor& x) {
  return {data<T>(x), x.stride(0), x.stride(1)};
}

template <typename T, typename Out>
void run(kernels::Matmul<T, Out>& args) {
  const kernels::MatmulBlocks blocks =
      kernels::matmul_blocks(args.rows, args.columns, flat::threads());
  flat::for_ranges(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
    kernels::matmul(args, blocks, begin, end);
  });
}

struct Extras {
  float scale = 1.0f;
  at::Tensor bias; // may be undefined
  bool accumulate = false;
  at::Tensor gelu_derivative; // may be undefined
  at::Tensor gate; // may be undefined
};

// The product by kernels::matmul.
void multiply(
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    const Extras& extras) {
  const at::Tensor left = as_operand(a);
  const at::Tensor right = as_operand(b);
  const auto fill =
      [&]<typename T, typename Out>(kernels::Matmul<T, Out> args) {
        args.rows = left.size(0);
        args.columns = right.size(1);
        args.depth = left.size(1);
        args.left = operand<T>(left);
        args.right = operand<T>(right);
        args.scale = extras.scale;
        args.bias = data<T>(extras.bias);
        args.accumulate = extras.accumulate;
        args.gelu_derivative = data<Out>(extras.gelu_derivative);
        args.gate = data<Out>(extras.gate);
        args.out = data<Out>(out);
        args.out_row = out.stride(0);
        run(args);
      };
  dispatch(left, [&](auto t) {
    using T = decltype(t);
    if (out.scalar_type() == at::kFloat) {
      fill(kernels::Matmul<T, float>());
    } else {
      fill(kernels::Matmul<T, T>());
    }
  });
}

} // namespace

bool has_own_product(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return !has_fast_mkl();
    case at::kBFloat16:
      return !kernels::has_tiles();
    default:
      return true;
  }
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, float factor) {
  if (has_own_product(a.scalar_type())) {
    at::Tensor result = at::empty({a.size(0), b.size(1)}, a.options());
    multiply(result, a, b, {.scale = factor});
    return result;
  }
  at::Tensor result = at::mm(a, b);
  return factor == 1.0f ? result : result.mul_(factor);
}

void bias_product_out(
    at::Tensor& out,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) {
  if (has_own_product(a.scalar_type())) {
    multiply(out, a, b, {.bias = bias});
  } else {
    at::addmm_out(out, bias, a, b);
  }
}

Activation gelu_product(
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) {
  if (has_own_product(a.scalar_type())) {
    Activation result;
    result.value = at::empty({a.size(0), b.size(1)}, a.options());
    result.derivative = at::empty_like(result.value);
    const Extras extras{.bias = bias, .gelu_derivative = result.derivative};
    multiply(result.value, a, b, extras);
    return result;
  }
  at::Tensor value = product(a, b);
  const at::Tensor derivative = bias_gelu_(value, bias);
  return {value, derivative};
}

at::Tensor gated_product(
    const at::Tensor& gate,
    const at::Tensor& a,
    const at::Tensor& b) {
  if (has_own_product(a.scalar_type())) {
    at::Tensor result = at::empty_like(gate);
    multiply(result, a, b, {.gate = gate});
    return result;
  }
  at::Tensor result = product(a, b);
  gelu_backward_(result, gate);
  return result;
}

void add_product_(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  product_into(sum, a, b, 1.0f, true);
}

void product_into(
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    float factor,
    bool add) {
  if (has_own_product(a.scalar_type())) {
    multiply(out, a, b, {.scale = factor, .accumulate = add});
  } else if (out.scalar_type() != a.scalar_type()) {
    const at::Tensor result = product(a, factor == 1.0f ? b : b * factor);
    add ? out.add_(result) : out.copy_(result);
  } else if (add) {
    out.addmm_(a, b, 1.0f, factor);
  } else {
    at::mm_out(out, a, factor == 1.0f ? b : b * factor);
  }
}

} // namespace deepspeed::bert
