// One pass of Adam over flat arrays, and norms.
#include "deepspeed/kernels/adam.h"

#include <algorithm>
#include <cmath>

#include "deepspeed/kernels/dispatch.h"

#ifndef DEEPSPEED_KERNELS_ADAM_FACTORS
#define DEEPSPEED_KERNELS_ADAM_FACTORS
namespace deepspeed::kernels {

// What torch/optim/adam.py computes once per step, in double, then rounds; but
// one factor where it divides, as DeepSpeed's cpu_adam does: divisions would
// take as long as the memory.
struct AdamFactors {
  float grad_scale;
  float l2; // weight decay added to the gradient
  float keep; // factor of the weight: 1 - lr * decoupled weight decay
  float lerp; // 1 - beta1
  float beta2;
  float one_minus_beta2;
  float rsqrt_bias_correction2;
  float eps;
  float minus_step_size;
};

} // namespace deepspeed::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/adam.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Tensor.lerp_: below a weight of one half from the start, else from the end.
HWY_INLINE V lerp(V start, V end, float weight) {
  const V difference = hn::Sub(end, start);
  return weight < 0.5f ? hn::MulAdd(set(weight), difference, start)
                       : hn::MulAdd(set(weight - 1.0f), difference, end);
}

void update(
    const AdamFactors& f,
    const AdamArrays& a,
    int64_t begin,
    int64_t end) {
  for_vectors(end - begin, [&](int64_t i, auto part) HWY_ATTR {
    const int64_t at = begin + i;
    V weight = load(a.weight + at, part);
    V g = hn::Mul(load(a.gradient + at, part), set(f.grad_scale));
    if (f.l2 != 0.0f) {
      g = hn::MulAdd(weight, set(f.l2), g);
    }
    weight = hn::Mul(weight, set(f.keep));
    const V m = lerp(load(a.exp_avg + at, part), g, f.lerp);
    const V v = hn::MulAdd(
        hn::Mul(set(f.one_minus_beta2), g),
        g,
        hn::Mul(load(a.exp_avg_sq + at, part), set(f.beta2)));
    const V denominator =
        hn::MulAdd(hn::Sqrt(v), set(f.rsqrt_bias_correction2), set(f.eps));
    const V change = hn::Div(hn::Mul(set(f.minus_step_size), m), denominator);
    weight = hn::Add(weight, change);
    store(weight, a.weight + at, part);
    store(m, a.exp_avg + at, part);
    store(v, a.exp_avg_sq + at, part);
    if (a.low_precision_weight != nullptr) {
      store_exactly(weight, a.low_precision_weight + at, part);
    }
    if (a.float16_weight != nullptr) {
      store(weight, a.float16_weight + at, part);
    }
  });
}

// Sixteen sums side by side, on every instruction set, added in one order: the
// result is the same to the last bit on all of them.
double block_sum_of_squares(const float* x, int64_t n) {
  constexpr int64_t kSums = 16;
  using DD = hn::CappedTag<double, 8>;
  using DH = hn::Rebind<float, DD>;
  constexpr int64_t kDoubles = hn::MaxLanes(DD());
  const DD d;
  hn::Vec<DD> vectors[kSums / kDoubles];
  for (auto& vector : vectors) {
    vector = hn::Zero(d);
  }
  double sums[kSums];
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int64_t k = 0; k < kSums / kDoubles; ++k) {
      const auto value =
          hn::PromoteTo(d, hn::LoadU(DH(), x + i + k * kDoubles));
      vectors[k] = hn::MulAdd(value, value, vectors[k]);
    }
  }
  for (int64_t k = 0; k < kSums / kDoubles; ++k) {
    hn::StoreU(vectors[k], d, sums + k * kDoubles);
  }
  for (int64_t k = 0; i < n; ++i, ++k) {
    sums[k] += static_cast<double>(x[i]) * x[i];
  }
  double total = 0;
  for (const double sum : sums) {
    total += sum;
  }
  return total;
}

// An exponent of all ones is an infinity or a NaN.
bool block_all_finite(const float* x, int64_t n) {
  const VU exponent = hn::Set(DU(), 0x7f800000);
  VU largest = hn::Zero(DU());
  for_vectors(n, [&](int64_t i, auto part) HWY_ATTR {
    const VU word = hn::BitCast(DU(), load(x + i, part));
    largest = hn::Max(largest, hn::And(word, exponent));
  });
  return hn::GetLane(hn::MaxOfLanes(DU(), largest)) != 0x7f800000;
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(update);
HWY_EXPORT(block_sum_of_squares);
HWY_EXPORT(block_all_finite);

namespace {

AdamFactors factors_of(const AdamStep& step) {
  const double n = static_cast<double>(step.step);
  const double correction1 = 1.0 - std::pow(step.beta1, n);
  const double correction2 = 1.0 - std::pow(step.beta2, n);
  AdamFactors f;
  f.grad_scale = step.grad_scale;
  f.l2 = step.decoupled ? 0.0f : static_cast<float>(step.weight_decay);
  f.keep = step.decoupled
      ? static_cast<float>(1.0 - step.lr * step.weight_decay)
      : 1.0f;
  f.lerp = static_cast<float>(1.0 - step.beta1);
  f.beta2 = static_cast<float>(step.beta2);
  f.one_minus_beta2 = static_cast<float>(1.0 - step.beta2);
  f.rsqrt_bias_correction2 = static_cast<float>(1.0 / std::sqrt(correction2));
  f.eps = static_cast<float>(step.eps);
  f.minus_step_size = static_cast<float>(-step.lr / correction1);
  return f;
}

} // namespace

void adam_update(
    const AdamStep& step,
    const AdamArrays& arrays,
    int64_t begin,
    int64_t end) {
  DS_DISPATCH(update)(factors_of(step), arrays, begin, end);
}

double sum_of_squares(const float* x, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; i += kSumBlock) {
    total +=
        DS_DISPATCH(block_sum_of_squares)(x + i, std::min(kSumBlock, n - i));
  }
  return total;
}

bool all_finite(const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kSumBlock) {
    if (!DS_DISPATCH(block_all_finite)(x + i, std::min(kSumBlock, n - i))) {
      return false;
    }
  }
  return true;
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
