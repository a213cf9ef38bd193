// Tensors as the kernels take them.
#pragma once

#include <type_traits>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::ops::cpu {

// The elements; null if the tensor is undefined.
template <typename T>
T* data(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return nullptr;
  }
  if constexpr (std::is_same_v<T, base::BFloat16>) {
    return reinterpret_cast<T*>(tensor.data_ptr<at::BFloat16>());
  } else if constexpr (std::is_same_v<T, base::Float16>) {
    return reinterpret_cast<T*>(tensor.data_ptr<at::Half>());
  } else {
    return tensor.data_ptr<T>();
  }
}

// Calls function(float{}), function(base::BFloat16{}) or
// function(base::Float16{}) by the tensor's dtype.
template <typename Function>
void dispatch(const at::Tensor& tensor, Function&& function) {
  if (tensor.scalar_type() == at::kBFloat16) {
    function(base::BFloat16{});
  } else if (tensor.scalar_type() == at::kHalf) {
    function(base::Float16{});
  } else {
    TORCH_CHECK_VALUE(
        tensor.scalar_type() == at::kFloat,
        "the fast implementation computes in fp32, bf16 and fp16, but got ",
        tensor.scalar_type());
    function(float{});
  }
}

} // namespace deepspeed::ops::cpu
