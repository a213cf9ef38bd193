// Tensors that live as long as the training and are walked through in every
// step.
#pragma once

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// One dimension of zeros; on the CPU in huge pages where the system has them.
at::Tensor large_zeros(int64_t numel, const at::TensorOptions& options);

} // namespace deepspeed::flat
