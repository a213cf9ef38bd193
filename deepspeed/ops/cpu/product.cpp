// Matrix products in the compute dtype.
#include "deepspeed/ops/cpu/product.h"

#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/matmul.h"
#include "deepspeed/ops/cpu/dispatch.h"
#include "deepspeed/ops/cpu/operations.h"

namespace deepspeed::ops::cpu {
namespace {

// Intel's processors run libtorch's products (MKL) in fp32 as fast as ours or
// faster; others, AMD's among them, do not.
bool has_fast_mkl() {
  static const bool has = __builtin_cpu_is("intel");
  return has;
}

// What DS_PRODUCTS asks for.
std::optional<bool> asked_products() {
  const char* const value = std::getenv("DS_PRODUCTS");
  const std::string name = value == nullptr ? "" : value;
  if (name.empty()) {
    return std::nullopt;
  }
  if (name != "own" && name != "libtorch") {
    throw base::Error(
        base::ExitCode::usage,
        "no matrix products called \"" + name + "\"",
        "environment variable DS_PRODUCTS",
        "use own or libtorch, or leave it unset for the faster ones");
  }
  return name == "own";
}

std::optional<bool>& chosen_products() {
  static std::optional<bool> own = asked_products();
  return own;
}

// A result of more bytes is not kept in the caches for its reader.
constexpr int64_t kStreamedBytes = 16 << 20;

// kernels::matmul takes matrices with one stride of 1.
at::Tensor as_operand(const at::Tensor& x) {
  return x.stride(0) == 1 || x.stride(1) == 1 ? x : x.contiguous();
}

template <typename T>
kernels::MatmulOperand<T> operand(const at::Tensor& x) {
  return {data<T>(x), x.stride(0), x.stride(1)};
}

struct Extras {
  at::Tensor bias; // may be undefined
  bool accumulate = false;
  at::Tensor gelu_derivative; // may be undefined
  at::Tensor gate; // may be undefined
};

// Calls function(Matmul) for the product of a and b by kernels::matmul.
template <typename Function>
void with_matmul(
    at::Tensor& out,
    const at::Tensor& left,
    const at::Tensor& right,
    const Extras& extras,
    Function&& function) {
  const auto fill =
      [&]<typename T, typename Out>(kernels::Matmul<T, Out> args) {
        args.rows = left.size(0);
        args.columns = right.size(1);
        args.depth = left.size(1);
        args.left = operand<T>(left);
        args.right = operand<T>(right);
        args.bias = data<T>(extras.bias);
        args.accumulate = extras.accumulate;
        args.gelu_derivative = data<Out>(extras.gelu_derivative);
        args.gate = data<Out>(extras.gate);
        args.out = data<Out>(out);
        args.out_row = out.stride(0);
        args.streams = static_cast<int64_t>(out.nbytes()) > kStreamedBytes;
        function(args);
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

kernels::MatmulBlocks blocks_of(const at::Tensor& out) {
  return kernels::matmul_blocks(out.size(0), out.size(1), flat::threads());
}

// The product by kernels::matmul.
void multiply(
    flat::TaskList& tasks,
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    const Extras& extras) {
  const at::Tensor left = as_operand(a);
  const at::Tensor right = as_operand(b);
  const kernels::MatmulBlocks blocks = blocks_of(out);
  with_matmul(out, left, right, extras, [&](const auto& args) {
    tasks.add_ranges(
        0,
        blocks.count,
        1,
        [args, blocks, left, right, out](int64_t begin, int64_t end) {
          kernels::matmul(args, blocks, begin, end);
        });
  });
}

// One after the other in each block of the sum.
void multiply_all(
    flat::TaskList& tasks,
    at::Tensor& sum,
    const std::vector<Factors>& pairs) {
  const kernels::MatmulBlocks blocks = blocks_of(sum);
  std::vector<std::function<void(int64_t)>> products;
  for (const Factors& pair : pairs) {
    const at::Tensor left = as_operand(pair.a);
    const at::Tensor right = as_operand(pair.b);
    with_matmul(sum, left, right, {.accumulate = true}, [&](const auto& args) {
      products.emplace_back([args, blocks, left, right](int64_t block) {
        kernels::matmul(args, blocks, block, block + 1);
      });
    });
  }
  tasks.add(blocks.count, [sum, products = std::move(products)](int64_t block) {
    for (const auto& product : products) {
      product(block);
    }
  });
}

} // namespace

void force_own_products(std::optional<bool> own) {
  chosen_products() = own ? own : asked_products();
}

bool has_own_product(at::ScalarType dtype) {
  if (chosen_products() && dtype != at::kHalf) {
    return *chosen_products();
  }
  return dtype != at::kFloat || !has_fast_mkl();
}

at::Tensor Operations::product(
    flat::TaskList& tasks,
    const at::Tensor& a,
    const at::Tensor& b) const {
  if (has_own_product(a.scalar_type())) {
    at::Tensor result = at::empty({a.size(0), b.size(1)}, a.options());
    multiply(tasks, result, a, b, {});
    return result;
  }
  return at::mm(a, b);
}

void Operations::bias_product_out(
    flat::TaskList& tasks,
    at::Tensor& out,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) const {
  if (has_own_product(a.scalar_type())) {
    multiply(tasks, out, a, b, {.bias = bias});
  } else {
    at::addmm_out(out, bias, a, b);
  }
}

Activation Operations::gelu_product(
    flat::TaskList& tasks,
    const at::Tensor& bias,
    const at::Tensor& a,
    const at::Tensor& b) const {
  if (has_own_product(a.scalar_type())) {
    Activation result;
    result.value = at::empty({a.size(0), b.size(1)}, a.options());
    result.derivative = at::empty_like(result.value);
    const Extras extras{.bias = bias, .gelu_derivative = result.derivative};
    multiply(tasks, result.value, a, b, extras);
    return result;
  }
  at::Tensor value = at::mm(a, b);
  const at::Tensor derivative = bias_gelu_(value, bias);
  return {value, derivative};
}

at::Tensor Operations::gated_product(
    flat::TaskList& tasks,
    const at::Tensor& gate,
    const at::Tensor& a,
    const at::Tensor& b) const {
  if (has_own_product(a.scalar_type())) {
    at::Tensor result = at::empty_like(gate);
    multiply(tasks, result, a, b, {.gate = gate});
    return result;
  }
  at::Tensor result = at::mm(a, b);
  gelu_backward_(result, gate);
  return result;
}

void Operations::add_products_(
    flat::TaskList& tasks,
    at::Tensor& sum,
    const std::vector<Factors>& pairs) const {
  if (has_own_product(sum.scalar_type())) {
    multiply_all(tasks, sum, pairs);
    return;
  }
  for (const Factors& pair : pairs) {
    sum.addmm_(pair.a, pair.b);
  }
}

void product_into(
    flat::TaskList& tasks,
    at::Tensor& out,
    const at::Tensor& a,
    const at::Tensor& b,
    bool add) {
  if (has_own_product(a.scalar_type())) {
    multiply(tasks, out, a, b, {.accumulate = add});
  } else if (out.scalar_type() != a.scalar_type()) {
    const at::Tensor result = at::mm(a, b);
    add ? out.add_(result) : out.copy_(result);
  } else if (add) {
    out.addmm_(a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

} // namespace deepspeed::ops::cpu
