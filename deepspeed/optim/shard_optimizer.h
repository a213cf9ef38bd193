// Optimizers that update one shard of a param group, whatever the parameters in
// it: what ZeRO needs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::optim {

// The memory of one shard: n elements each, contiguous, on one device.
struct ShardTensors {
  at::Tensor weight; // fp32
  at::Tensor gradient; // fp32, read only
  // The copy in the compute dtype, bf16 or fp16; undefined if that is fp32 and
  // `weight` itself.
  at::Tensor low_precision;
};

// One update. Gradients are multiplied by `gradient_scale` first.
struct ShardStep {
  double learning_rate = 0;
  double beta1 = 0.9; // or the momentum
  double beta2 = 0.999;
  double gradient_scale = 1;
};

// A piece of a parameter inside a shard, in elements of the shard.
struct ShardPiece {
  int64_t parameter = 0; // number in the param group
  int64_t begin = 0;
  int64_t end = 0;
};

// A state tensor under the name that torch's state_dict gives it.
struct NamedState {
  std::string name; // "exp_avg"
  at::Tensor tensor; // fp32 [n]
};

// The update rule and its state for one shard. Elements are updated one by one,
// so that it does not matter how a group is cut; what needs more than that
// (Lamb's norms) is summed over the ranks. Not thread-safe.
class ShardOptimizer {
 public:
  virtual ~ShardOptimizer() = default;

  virtual void step(const ShardTensors& shard, const ShardStep& step) = 0;

  // Zeros before the first step.
  const std::vector<NamedState>& states() const {
    return states_;
  }
  // Updates so far.
  int64_t steps() const {
    return steps_;
  }
  // After states() have been filled from a checkpoint.
  void set_steps(int64_t steps) {
    steps_ = steps;
  }

 protected:
  std::vector<NamedState> states_;
  int64_t steps_ = 0;
};

// Adam and AdamW (kernels/adam.h).
struct ShardAdamOptions {
  double eps = 1e-8;
  double weight_decay = 0;
  bool decoupled_weight_decay = true; // AdamW
  bool bias_correction = true;
};
std::unique_ptr<ShardOptimizer> make_shard_adam(
    const at::Tensor& weight,
    const ShardAdamOptions& options);

// torch/optim/sgd.py; the momentum is ShardStep::beta1.
struct ShardSgdOptions {
  bool has_momentum = false;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};
std::unique_ptr<ShardOptimizer> make_shard_sgd(
    const at::Tensor& weight,
    const ShardSgdOptions& options);

// Lamb (You et al., 2020) as DeepSpeed's FusedLamb computes it
// (csrc/lamb/fused_lamb_cuda_kernel.cu): the ratio of a parameter's norm to its
// update's norm, within [min_coeff, max_coeff], scales the update.
struct ShardLambOptions {
  double eps = 1e-8;
  double weight_decay = 0;
  bool bias_correction = true;
  double max_coeff = 10.0;
  double min_coeff = 0.01;
  int64_t parameters = 0; // in the whole param group
  std::vector<ShardPiece> pieces; // all of the shard
  // The pieces whose norms this rank counts: together the ranks count each
  // element once, cut alike in every stage.
  std::vector<ShardPiece> counted;
  // Sums a double tensor over the ranks, in rank order.
  std::function<void(at::Tensor&)> sum_over_ranks;
};
std::unique_ptr<ShardOptimizer> make_shard_lamb(
    const at::Tensor& weight,
    ShardLambOptions options);

} // namespace deepspeed::optim
