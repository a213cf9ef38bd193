// Fused bias + dropout + residual + layer normalization, both ways.
#include "deepspeed/kernels/layer_norm.h"

#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/layer_norm.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/dropout_inl.h"
#include "deepspeed/kernels/layer_norm_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Draws the row's random numbers into memory for `hidden` of them.
HWY_INLINE void draw_row(
    const Dropout& dropout,
    const PhiloxKeys& keys,
    const TokenKeys& tokens,
    int64_t row,
    int64_t hidden,
    uint16_t* random) {
  dropout_row(
      dropout, keys, tokens.visit[row], tokens.position[row], hidden, random);
}

// sum[i] = residual + dropout(x + bias); returns its lane-wise sums.
template <bool kDropout, typename T>
HWY_INLINE V add_row(
    const LayerNormForward<T>& args,
    int64_t row,
    const uint16_t* random,
    float* sum) {
  const VU threshold = hn::Set(DU(), args.dropout.threshold);
  const V scale = set(args.dropout.scale);
  const int64_t first = row * args.hidden;
  V total = zero();
  for_vectors(args.hidden, [&](int64_t i, auto part) HWY_ATTR {
    V z = load(args.x + first + i, part);
    if (args.bias != nullptr) {
      z = hn::Add(z, load(args.bias + i, part));
    }
    if (kDropout) {
      z = drop(z, load_bits(random + i, part), threshold, scale);
    }
    if (args.residual != nullptr) {
      z = hn::Add(z, load(args.residual + first + i, part));
    }
    store(z, sum + i, part);
    total = hn::Add(total, z);
  });
  return total;
}

template <typename T>
HWY_INLINE void layer_norm_forward_range(
    const LayerNormForward<T>& args,
    int64_t begin,
    int64_t end) {
  const int64_t hidden = args.hidden;
  float* sum = scratch_floats(static_cast<size_t>(2 * hidden));
  uint16_t* random = reinterpret_cast<uint16_t*>(sum + hidden);
  const PhiloxKeys keys(args.dropout.key);
  for (int64_t row = begin; row < end; ++row) {
    V total;
    if (args.dropout.active()) {
      draw_row(args.dropout, keys, args.tokens, row, hidden, random);
      total = add_row<true>(args, row, random, sum);
    } else {
      total = add_row<false>(args, row, random, sum);
    }
    const RowStatistics s = row_statistics(sum, hidden, total, args.eps);
    if (args.rstd != nullptr) {
      args.rstd[row] = s.rstd;
    }
    const int64_t first = row * hidden;
    for_vectors(hidden, [&](int64_t i, auto part) HWY_ATTR {
      const V normalized =
          hn::Mul(hn::Sub(load(sum + i, part), set(s.mean)), set(s.rstd));
      if (args.normalized != nullptr) {
        store(normalized, args.normalized + first + i, part);
      }
      const V gamma = load(args.gamma + i, part);
      const V beta = load(args.beta + i, part);
      store(hn::MulAdd(normalized, gamma, beta), args.y + first + i, part);
    });
  }
}
DS_RANGE_KERNEL(layer_norm_forward, LayerNormForward)

// With g = dy * gamma: d = rstd * (g - mean(g) - normalized * mean(g *
// normalized)), the gradient of the sum that was normalized.
template <bool kDropout, typename T>
HWY_INLINE void backward_row(
    const LayerNormBackward<T>& args,
    int64_t row,
    const uint16_t* random) {
  const VU threshold = hn::Set(DU(), args.dropout.threshold);
  const V scale = set(args.dropout.scale);
  const int64_t first = row * args.hidden;
  const T* dy = args.dy + first;
  const T* normalized = args.normalized + first;
  V sum = zero();
  V product_sum = zero();
  for_vectors(args.hidden, [&](int64_t i, auto part) HWY_ATTR {
    const V g = hn::Mul(load(dy + i, part), load(args.gamma + i, part));
    sum = hn::Add(sum, g);
    product_sum = hn::MulAdd(g, load(normalized + i, part), product_sum);
  });
  const float n = static_cast<float>(args.hidden);
  const V mean = set(sum_of_lanes(sum) / n);
  const V product_mean = set(sum_of_lanes(product_sum) / n);
  const V rstd = set(args.rstd[row]);
  for_vectors(args.hidden, [&](int64_t i, auto part) HWY_ATTR {
    const V g = hn::Mul(load(dy + i, part), load(args.gamma + i, part));
    const V centered = hn::NegMulAdd(
        load(normalized + i, part), product_mean, hn::Sub(g, mean));
    const V d = hn::Mul(centered, rstd);
    if (args.dresidual != nullptr) {
      store(d, args.dresidual + first + i, part);
    }
    if (args.dx != nullptr) {
      const V dx =
          kDropout ? drop(d, load_bits(random + i, part), threshold, scale) : d;
      store(dx, args.dx + first + i, part);
    }
  });
}

template <typename T>
HWY_INLINE void layer_norm_backward_range(
    const LayerNormBackward<T>& args,
    int64_t begin,
    int64_t end) {
  uint16_t* random = reinterpret_cast<uint16_t*>(
      scratch_floats(static_cast<size_t>(args.hidden)));
  const PhiloxKeys keys(args.dropout.key);
  for (int64_t row = begin; row < end; ++row) {
    if (args.dropout.active() && args.dx != nullptr) {
      draw_row(args.dropout, keys, args.tokens, row, args.hidden, random);
      backward_row<true>(args, row, random);
    } else {
      backward_row<false>(args, row, random);
    }
  }
}
DS_RANGE_KERNEL(layer_norm_backward, LayerNormBackward)

constexpr int64_t kRowBlock = 64; // rows that are summed apart, see column_sum
constexpr int64_t kWide = 4; // vectors of columns that run side by side

template <int64_t kCount, typename T, typename Size>
HWY_INLINE void parameter_columns(
    const LayerNormParameterGradients<T>& args,
    int64_t column,
    Size part) {
  V dgamma[kCount];
  V dbeta[kCount];
  for (int64_t k = 0; k < kCount; ++k) {
    dgamma[k] = zero();
    dbeta[k] = zero();
  }
  for (int64_t first = 0; first < args.rows; first += kRowBlock) {
    const int64_t last = HWY_MIN(first + kRowBlock, args.rows);
    V products[kCount];
    V sums[kCount];
    for (int64_t k = 0; k < kCount; ++k) {
      products[k] = zero();
      sums[k] = zero();
    }
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * args.hidden + column;
      for (int64_t k = 0; k < kCount; ++k) {
        const V dy = load(args.dy + at + k * kLanes, part);
        const V normalized = load(args.normalized + at + k * kLanes, part);
        products[k] = hn::MulAdd(dy, normalized, products[k]);
        sums[k] = hn::Add(sums[k], dy);
      }
    }
    for (int64_t k = 0; k < kCount; ++k) {
      dgamma[k] = hn::Add(dgamma[k], products[k]);
      dbeta[k] = hn::Add(dbeta[k], sums[k]);
    }
  }
  for (int64_t k = 0; k < kCount; ++k) {
    float* gamma_out = args.dgamma + column + k * kLanes;
    float* beta_out = args.dbeta + column + k * kLanes;
    if (args.accumulate) {
      dgamma[k] = hn::Add(load(gamma_out, part), dgamma[k]);
      dbeta[k] = hn::Add(load(beta_out, part), dbeta[k]);
    }
    store(dgamma[k], gamma_out, part);
    store(dbeta[k], beta_out, part);
  }
}

template <typename T>
HWY_INLINE void layer_norm_backward_params_range(
    const LayerNormParameterGradients<T>& args,
    int64_t begin,
    int64_t end) {
  int64_t column = begin;
  for (; column + kWide * kLanes <= end; column += kWide * kLanes) {
    parameter_columns<kWide>(args, column, Full());
  }
  for_vectors(end - column, [&](int64_t i, auto part) HWY_ATTR {
    parameter_columns<1>(args, column + i, part);
  });
}
DS_RANGE_KERNEL(layer_norm_backward_params, LayerNormParameterGradients)

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
DS_RANGE_ENTRY(layer_norm_forward, LayerNormForward)
DS_RANGE_ENTRY(layer_norm_backward, LayerNormBackward)
DS_RANGE_ENTRY(layer_norm_backward_params, LayerNormParameterGradients)
} // namespace deepspeed::kernels
#endif // HWY_ONCE
