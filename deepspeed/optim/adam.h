// Adam and AdamW on flat buffers, with the formula of torch.optim.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deepspeed/flat/flat_parameters.h"
#include "deepspeed/optim/adam_arrays.h"

namespace deepspeed::optim {

// Defaults are torch.optim.Adam's.
struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0; // added to the gradient, or decoupled
  bool decoupled_weight_decay = false; // true: AdamW
};

// The state of one parameter, as torch.optim.Adam's state_dict has it.
struct AdamParameterState {
  int64_t step = 0; // updates so far
  at::Tensor exp_avg; // fp32, the parameter's shape, a view
  at::Tensor exp_avg_sq; // the same
};

// Kingma and Ba, "Adam: a method for stochastic optimization" (2015), computed
// as torch/optim/adam.py does: bias corrections in double, the rest in fp32.
//
// The rule is that of make_shard_adam(), with torch's count of steps for each
// parameter: those without a gradient in a step are left alone, their count
// too. The update is one pass over memory: unscale and clip, moments, weights,
// and the compute-dtype copy. The result does not depend on the thread count.
// Not thread-safe.
class Adam {
 public:
  // `parameters` must outlive the optimizer.
  Adam(flat::FlatParameters& parameters, const AdamOptions& options);
  ~Adam();

  // Before the one backward pass of a step whose gradients nobody else needs:
  // rows of a large matrix may then be updated as soon as backward makes their
  // gradient, while they are in the cache. step() with the same arguments must
  // follow. The result is the same to the last bit. `with_norm`:
  // gradient_norm() will be called.
  void start_early(
      double learning_rate,
      double gradient_scale = 1.0,
      bool with_norm = false);
  // Between backward and step(): that of the parameters, with what was updated
  // early. Throws std::logic_error if start_early() was not told.
  double gradient_norm() const;
  // One update with gradients multiplied by `gradient_scale` first.
  void step(double learning_rate, double gradient_scale = 1.0);

  const AdamOptions& options() const {
    return options_;
  }
  // Of the last step(), for files; 0 before the first.
  double last_learning_rate() const {
    return last_learning_rate_;
  }
  // In the order of parameters.entries(). step == 0: no state yet.
  std::vector<AdamParameterState>& state() {
    return state_;
  }
  const std::vector<AdamParameterState>& state() const {
    return state_;
  }

 private:
  class EarlyRows;

  kernels::AdamStep numbers(
      int64_t step,
      double learning_rate,
      double gradient_scale) const;
  // Of the elements from `offset` on.
  kernels::AdamArrays arrays(int64_t offset) const;

  flat::FlatParameters& parameters_;
  AdamOptions options_;
  double last_learning_rate_ = 0;
  ShardTensors tensors_; // all elements
  AdamMoments moments_;
  std::vector<AdamParameterState> state_;
  std::vector<std::unique_ptr<EarlyRows>> early_; // of this step
};

// The L2 norm of all gradients of this step, times `scale`. Sums blocks of
// fixed size in double, so the result does not depend on the thread count.
double gradient_norm(
    const flat::FlatParameters& parameters,
    double scale = 1.0);

// The factor that torch.nn.utils.clip_grad_norm_ multiplies gradients by:
// min(1, max_norm / (norm + 1e-6)). A NaN norm gives NaN.
double clip_factor(double norm, double max_norm);

} // namespace deepspeed::optim
