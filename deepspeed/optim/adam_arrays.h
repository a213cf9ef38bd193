// Adam's memory for flat elements: shared by all that update by its rule.
#pragma once

#include "deepspeed/kernels/adam.h"
#include "deepspeed/optim/shard_optimizer.h"

namespace deepspeed::optim {

// Zeros in the beginning.
struct AdamMoments {
  explicit AdamMoments(const at::Tensor& weight); // fp32 [n]

  at::Tensor exp_avg; // fp32 [n]
  at::Tensor exp_avg_sq; // fp32 [n]
};

// The elements from `offset` on, as the kernel takes them. Weights in bf16 or
// fp16 are written in the same pass.
kernels::AdamArrays arrays_of(
    const ShardTensors& shard,
    const AdamMoments& moments,
    int64_t offset = 0);

} // namespace deepspeed::optim
