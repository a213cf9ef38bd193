// Adam and AdamW on flat buffers, with the formula of torch.optim.
#include "deepspeed/optim/adam.h"

#include <algorithm>
#include <cmath>

#include "deepspeed/base/trace.h"
#include "deepspeed/flat/large_tensor.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/adam.h"
#include "deepspeed/optim/grain.h"

namespace deepspeed::optim {
namespace {

at::Tensor like(const at::Tensor& flat) {
  return flat::large_zeros(flat.numel(), flat.options());
}

} // namespace

Adam::Adam(flat::FlatParameters& parameters, const AdamOptions& options)
    : parameters_(parameters),
      options_(options),
      exp_avg_(like(parameters.master())),
      exp_avg_sq_(like(parameters.master())) {
  for (const flat::FlatEntry& entry : parameters.entries()) {
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, entry.offset, entry.numel)
          .view(entry.master.sizes());
    };
    state_.push_back({0, view(exp_avg_), view(exp_avg_sq_)});
  }
}

void Adam::step(double learning_rate, double gradient_scale) {
  const base::Span span({"update"});
  last_learning_rate_ = learning_rate;
  // Parameters that stand side by side and have seen as many updates are
  // updated together.
  const auto& entries = parameters_.entries();
  size_t i = 0;
  while (i < entries.size()) {
    if (entries[i].slot.fresh) {
      ++i;
      continue;
    }
    const int64_t step = state_[i].step + 1;
    const int64_t begin = entries[i].offset;
    int64_t end = begin;
    while (i < entries.size() && !entries[i].slot.fresh &&
           state_[i].step + 1 == step) {
      state_[i].step = step;
      end = entries[i].offset + entries[i].numel;
      ++i;
    }
    update({begin, end}, step, learning_rate, gradient_scale);
  }
}

void Adam::update(
    flat::FlatRange range,
    int64_t step,
    double learning_rate,
    double gradient_scale) {
  const kernels::AdamStep parameters{
      .lr = learning_rate,
      .beta1 = options_.beta1,
      .beta2 = options_.beta2,
      .eps = options_.eps,
      .weight_decay = options_.weight_decay,
      .decoupled = options_.decoupled_weight_decay,
      .step = step,
      .grad_scale = static_cast<float>(gradient_scale)};
  kernels::AdamArrays arrays;
  arrays.gradient = parameters_.gradients().data_ptr<float>();
  arrays.weight = parameters_.master().data_ptr<float>();
  arrays.exp_avg = exp_avg_.data_ptr<float>();
  arrays.exp_avg_sq = exp_avg_sq_.data_ptr<float>();
  if (parameters_.has_separate_master()) {
    const at::Tensor& compute = parameters_.compute();
    if (compute.scalar_type() == at::kHalf) {
      arrays.float16_weight =
          reinterpret_cast<base::Float16*>(compute.data_ptr<at::Half>());
    } else {
      arrays.low_precision_weight =
          reinterpret_cast<base::BFloat16*>(compute.data_ptr<at::BFloat16>());
    }
  }
  flat::for_ranges(
      range.begin, range.end, kGrain, [&](int64_t begin, int64_t end) {
        kernels::adam_update(parameters, arrays, begin, end);
      });
}

double gradient_norm(const flat::FlatParameters& parameters, double scale) {
  const base::Span span({"gradient norm"});
  const float* gradients = parameters.gradients().data_ptr<float>();
  double total = 0;
  for (const flat::FlatRange& range : parameters.ranges_with_gradient()) {
    const int64_t n = range.end - range.begin;
    const int64_t blocks = (n + kernels::kSumBlock - 1) / kernels::kSumBlock;
    std::vector<double> sums(blocks);
    flat::for_ranges(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kernels::kSumBlock;
        sums[block] = kernels::sum_of_squares(
            gradients + range.begin + first,
            std::min(kernels::kSumBlock, n - first));
      }
    });
    for (const double sum : sums) {
      total += sum;
    }
  }
  return std::sqrt(total) * scale;
}

double clip_factor(double norm, double max_norm) {
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1.0 ? 1.0 : factor;
}

} // namespace deepspeed::optim
