// Adam and AdamW on one shard.
#include "deepspeed/flat/parallel.h"
#include "deepspeed/optim/adam_arrays.h"
#include "deepspeed/optim/grain.h"
#include "deepspeed/optim/shard_optimizer.h"

namespace deepspeed::optim {
namespace {

// Of a step whose bias corrections are exactly 1: beta^step is 0.
constexpr int64_t kNoBiasCorrection = int64_t{1} << 60;

class ShardAdam : public ShardOptimizer {
 public:
  ShardAdam(const at::Tensor& weight, const ShardAdamOptions& options)
      : options_(options), moments_(weight) {
    states_.push_back({"exp_avg", moments_.exp_avg});
    states_.push_back({"exp_avg_sq", moments_.exp_avg_sq});
  }

  void step(const ShardTensors& shard, const ShardStep& step) override {
    ++steps_;
    const kernels::AdamStep parameters{
        .lr = step.learning_rate,
        .beta1 = step.beta1,
        .beta2 = step.beta2,
        .eps = options_.eps,
        .weight_decay = options_.weight_decay,
        .decoupled = options_.decoupled_weight_decay,
        .step = options_.bias_correction ? steps_ : kNoBiasCorrection,
        .grad_scale = static_cast<float>(step.gradient_scale)};
    const kernels::AdamArrays arrays = arrays_of(shard, moments_);
    flat::for_ranges(
        0, shard.weight.numel(), kGrain, [&](int64_t begin, int64_t end) {
          kernels::adam_update(parameters, arrays, begin, end);
        });
  }

 private:
  ShardAdamOptions options_;
  AdamMoments moments_;
};

} // namespace

std::unique_ptr<ShardOptimizer> make_shard_adam(
    const at::Tensor& weight,
    const ShardAdamOptions& options) {
  return std::make_unique<ShardAdam>(weight, options);
}

} // namespace deepspeed::optim
