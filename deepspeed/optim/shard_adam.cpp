// Adam and AdamW on one shard.
#include "deepspeed/flat/large_tensor.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/adam.h"
#include "deepspeed/optim/grain.h"
#include "deepspeed/optim/shard_optimizer.h"

namespace deepspeed::optim {
namespace {

// Of a step whose bias corrections are exactly 1: beta^step is 0.
constexpr int64_t kNoBiasCorrection = int64_t{1} << 60;

class ShardAdam : public ShardOptimizer {
 public:
  ShardAdam(const at::Tensor& weight, const ShardAdamOptions& options)
      : options_(options) {
    states_.push_back(
        {"exp_avg", flat::large_zeros(weight.numel(), weight.options())});
    states_.push_back(
        {"exp_avg_sq", flat::large_zeros(weight.numel(), weight.options())});
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
    kernels::AdamArrays arrays;
    arrays.gradient = shard.gradient.const_data_ptr<float>();
    arrays.weight = shard.weight.data_ptr<float>();
    arrays.exp_avg = states_[0].tensor.data_ptr<float>();
    arrays.exp_avg_sq = states_[1].tensor.data_ptr<float>();
    const bool bf16 = shard.low_precision.defined() &&
        shard.low_precision.scalar_type() == at::kBFloat16;
    if (bf16) {
      arrays.low_precision_weight = reinterpret_cast<base::BFloat16*>(
          shard.low_precision.data_ptr<at::BFloat16>());
    }
    flat::for_ranges(
        0, shard.weight.numel(), kGrain, [&](int64_t begin, int64_t end) {
          kernels::adam_update(parameters, arrays, begin, end);
        });
    if (shard.low_precision.defined() && !bf16) {
      shard.low_precision.copy_(shard.weight);
    }
  }

 private:
  ShardAdamOptions options_;
};

} // namespace

std::unique_ptr<ShardOptimizer> make_shard_adam(
    const at::Tensor& weight,
    const ShardAdamOptions& options) {
  return std::make_unique<ShardAdam>(weight, options);
}

} // namespace deepspeed::optim
