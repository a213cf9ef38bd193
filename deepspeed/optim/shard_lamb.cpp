// Lamb on one shard: the only rule that must know where parameters begin.
#include <algorithm>
#include <cmath>

#include "deepspeed/flat/large_tensor.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/optim/grain.h"
#include "deepspeed/optim/shard_optimizer.h"

namespace deepspeed::optim {
namespace {

constexpr int64_t kNormBlock = 16384; // a sum of fixed blocks, in order

class ShardLamb : public ShardOptimizer {
 public:
  ShardLamb(const at::Tensor& weight, ShardLambOptions options)
      : options_(std::move(options)) {
    states_.push_back(
        {"exp_avg", flat::large_zeros(weight.numel(), weight.options())});
    states_.push_back(
        {"exp_avg_sq", flat::large_zeros(weight.numel(), weight.options())});
  }

  void step(const ShardTensors& shard, const ShardStep& step) override {
    ++steps_;
    update_moments(shard, step);
    at::Tensor squares = at::zeros({2 * options_.parameters}, at::kDouble);
    for (const ShardPiece& piece : options_.counted) {
      add_squares(shard, piece, squares.data_ptr<double>());
    }
    options_.sum_over_ranks(squares);
    double rate = step.learning_rate;
    if (options_.bias_correction) {
      const auto steps = static_cast<double>(steps_);
      rate *= std::sqrt(1 - std::pow(step.beta2, steps)) /
          (1 - std::pow(step.beta1, steps));
    }
    for (const ShardPiece& piece : options_.pieces) {
      const double* square =
          squares.const_data_ptr<double>() + 2 * piece.parameter;
      apply(shard, piece, rate * coefficient(square[0], square[1]));
    }
    if (shard.low_precision.defined()) {
      shard.low_precision.copy_(shard.weight);
    }
  }

 private:
  double coefficient(double weight_square, double update_square) const {
    if (weight_square == 0 || update_square == 0) {
      return 1;
    }
    return std::clamp(
        std::sqrt(weight_square) / std::sqrt(update_square),
        options_.min_coeff,
        options_.max_coeff);
  }

  void update_moments(const ShardTensors& shard, const ShardStep& step) {
    const auto scale = static_cast<float>(step.gradient_scale);
    const auto beta1 = static_cast<float>(step.beta1);
    const auto beta2 = static_cast<float>(step.beta2);
    const float* gradient = shard.gradient.const_data_ptr<float>();
    float* m = states_[0].tensor.data_ptr<float>();
    float* v = states_[1].tensor.data_ptr<float>();
    const auto update = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float g = gradient[i] * scale;
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      }
    };
    flat::for_ranges(0, shard.weight.numel(), kGrain, update);
  }

  float direction(const float* weight, int64_t i) const {
    const float* m = states_[0].tensor.const_data_ptr<float>();
    const float* v = states_[1].tensor.const_data_ptr<float>();
    return m[i] / (std::sqrt(v[i]) + static_cast<float>(options_.eps)) +
        static_cast<float>(options_.weight_decay) * weight[i];
  }

  // squares[2 p] += |w|^2, squares[2 p + 1] += |update|^2 of the piece.
  void add_squares(
      const ShardTensors& shard,
      const ShardPiece& piece,
      double* squares) const {
    const float* weight = shard.weight.const_data_ptr<float>();
    const int64_t n = piece.end - piece.begin;
    const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
    std::vector<double> sums(2 * blocks, 0.0);
    const auto sum_block = [&](int64_t block) {
      const int64_t begin = piece.begin + block * kNormBlock;
      const int64_t end = std::min(begin + kNormBlock, piece.end);
      for (int64_t i = begin; i < end; ++i) {
        const double w = weight[i];
        const double u = direction(weight, i);
        sums[2 * block] += w * w;
        sums[2 * block + 1] += u * u;
      }
    };
    flat::for_ranges(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        sum_block(block);
      }
    });
    for (int64_t block = 0; block < blocks; ++block) {
      squares[2 * piece.parameter] += sums[2 * block];
      squares[2 * piece.parameter + 1] += sums[2 * block + 1];
    }
  }

  void apply(const ShardTensors& shard, const ShardPiece& piece, double rate)
      const {
    float* weight = shard.weight.data_ptr<float>();
    const auto step_size = static_cast<float>(rate);
    const auto update = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        weight[i] -= step_size * direction(weight, i);
      }
    };
    flat::for_ranges(piece.begin, piece.end, kGrain, update);
  }

  ShardLambOptions options_;
};

} // namespace

std::unique_ptr<ShardOptimizer> make_shard_lamb(
    const at::Tensor& weight,
    ShardLambOptions options) {
  return std::make_unique<ShardLamb>(weight, std::move(options));
}

} // namespace deepspeed::optim
