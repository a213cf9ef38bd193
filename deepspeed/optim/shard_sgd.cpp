// Stochastic gradient descent with momentum on one shard.
#include "deepspeed/flat/large_tensor.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/optim/grain.h"
#include "deepspeed/optim/shard_optimizer.h"

namespace deepspeed::optim {
namespace {

class ShardSgd : public ShardOptimizer {
 public:
  ShardSgd(const at::Tensor& weight, const ShardSgdOptions& options)
      : options_(options) {
    if (options_.has_momentum) {
      states_.push_back(
          {"momentum_buffer",
           flat::large_zeros(weight.numel(), weight.options())});
    }
  }

  void step(const ShardTensors& shard, const ShardStep& step) override {
    // torch starts the momentum with the first gradient, not a part of it.
    const bool first = steps_++ == 0;
    const auto scale = static_cast<float>(step.gradient_scale);
    const auto decay = static_cast<float>(options_.weight_decay);
    const auto momentum = static_cast<float>(step.beta1);
    const auto fresh = static_cast<float>(first ? 1 : 1 - options_.dampening);
    const auto rate = static_cast<float>(step.learning_rate);
    const float* gradient = shard.gradient.const_data_ptr<float>();
    float* weight = shard.weight.data_ptr<float>();
    float* buffer =
        options_.has_momentum ? states_[0].tensor.data_ptr<float>() : nullptr;
    const auto update = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float g = gradient[i] * scale + decay * weight[i];
        if (buffer != nullptr) {
          buffer[i] = (first ? 0 : momentum * buffer[i]) + fresh * g;
          g = options_.nesterov ? g + momentum * buffer[i] : buffer[i];
        }
        weight[i] -= rate * g;
      }
    };
    flat::for_ranges(0, shard.weight.numel(), kGrain, update);
    if (shard.low_precision.defined()) {
      shard.low_precision.copy_(shard.weight);
    }
  }

 private:
  ShardSgdOptions options_;
};

} // namespace

std::unique_ptr<ShardOptimizer> make_shard_sgd(
    const at::Tensor& weight,
    const ShardSgdOptions& options) {
  return std::make_unique<ShardSgd>(weight, options);
}

} // namespace deepspeed::optim
