// Adam's memory for flat elements.
#include "deepspeed/optim/adam_arrays.h"

#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::optim {

AdamMoments::AdamMoments(const at::Tensor& weight)
    : exp_avg(flat::large_zeros(weight.numel(), weight.options())),
      exp_avg_sq(flat::large_zeros(weight.numel(), weight.options())) {}

kernels::AdamArrays arrays_of(
    const ShardTensors& shard,
    const AdamMoments& moments,
    int64_t offset) {
  kernels::AdamArrays arrays;
  arrays.gradient = shard.gradient.const_data_ptr<float>() + offset;
  arrays.weight = shard.weight.data_ptr<float>() + offset;
  arrays.exp_avg = moments.exp_avg.data_ptr<float>() + offset;
  arrays.exp_avg_sq = moments.exp_avg_sq.data_ptr<float>() + offset;
  const at::Tensor& low = shard.low_precision;
  if (low.defined() && low.scalar_type() == at::kHalf) {
    arrays.float16_weight =
        reinterpret_cast<base::Float16*>(low.data_ptr<at::Half>()) + offset;
  } else if (low.defined()) {
    arrays.low_precision_weight =
        reinterpret_cast<base::BFloat16*>(low.data_ptr<at::BFloat16>()) +
        offset;
  }
  return arrays;
}

} // namespace deepspeed::optim
