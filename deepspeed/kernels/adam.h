// Adam and AdamW on flat fp32 arrays, with the formula of torch/optim/adam.py
// (Kingma & Ba, 2015; Loshchilov & Hutter, 2019), and the norms it needs.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

struct AdamStep {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  bool decoupled = false; // AdamW: decay the weights, not the gradient
  int64_t step = 1; // number of this update, from 1
  float grad_scale = 1.0f; // multiplies gradients first: 1 / loss scale * clip
};

struct AdamArrays {
  const float* gradient = nullptr;
  float* weight = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  base::BFloat16* low_precision_weight = nullptr; // rounded copy; or null
  base::Float16* float16_weight = nullptr; // the same in fp16; or null
};

// Elements [begin, end). Elementwise: does not depend on how the range is cut.
void adam_update(
    const AdamStep& step,
    const AdamArrays& arrays,
    int64_t begin,
    int64_t end);

// Blocks of this many elements are summed apart, then added in order: cut
// arrays at multiples of it and add the parts in order, and the sum is the same
// for any number of threads.
constexpr int64_t kSumBlock = 16384;

// sum of x[i]^2 in double (each product is exact).
double sum_of_squares(const float* x, int64_t n);

// No infinity and no NaN among x.
bool all_finite(const float* x, int64_t n);

} // namespace deepspeed::kernels
