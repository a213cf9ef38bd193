// Tensors that live as long as the training.
#include "deepspeed/flat/large_tensor.h"

#include "deepspeed/base/memory_advice.h"

namespace deepspeed::flat {

at::Tensor large_zeros(int64_t numel, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty({numel}, options);
  if (tensor.is_cpu()) {
    base::advise_huge_pages(tensor.data_ptr(), tensor.nbytes());
  }
  return tensor.zero_();
}

} // namespace deepspeed::flat
