// The factor that keeps fp16 gradients away from zero.
#include "deepspeed/optim/loss_scaler.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

#include "deepspeed/base/error.h"

namespace deepspeed::optim {
namespace {

constexpr double kFactor = 2.0;
// A scaled loss must stay a finite float, also where gradients are all zero and
// nothing ever overflows.
constexpr double kMaxScale = 0x1p120;

[[noreturn]] void fail_at_minimum(double scale, int64_t iteration) {
  std::ostringstream what;
  what << "gradients are not finite at the smallest loss scale, " << scale;
  throw base::Error(
      base::ExitCode::internal,
      what.str(),
      "fp16.min_loss_scale, step " + std::to_string(iteration + 1),
      "a smaller scale would not help: use bf16, or a smaller learning rate, "
      "and go on from the last checkpoint");
}

} // namespace

LossScaler::LossScaler(const config::Fp16& fp16)
    : fp16_(fp16), dynamic_(fp16.enabled && fp16.loss_scale == 0.0) {
  if (dynamic_) {
    state_.scale = std::ldexp(1.0, static_cast<int>(fp16.initial_scale_power));
    state_.hysteresis = fp16.hysteresis;
  } else if (fp16.enabled) {
    state_.scale = fp16.loss_scale;
  }
}

void LossScaler::update(bool overflow) {
  if (!dynamic_) {
    return;
  }
  if (overflow) {
    if (fp16_.hysteresis == 1 || state_.hysteresis == 1) {
      if (state_.scale == fp16_.min_loss_scale) {
        fail_at_minimum(state_.scale, state_.iteration);
      }
      state_.scale = std::max(state_.scale / kFactor, fp16_.min_loss_scale);
    } else {
      --state_.hysteresis;
    }
    state_.last_overflow = state_.iteration;
  } else {
    const int64_t clean = state_.iteration - state_.last_overflow - 1;
    const bool grows = clean > 0 && clean % fp16_.loss_scale_window == 0;
    if (grows || fp16_.consecutive_hysteresis) {
      state_.hysteresis = fp16_.hysteresis;
    }
    if (grows) {
      state_.scale = std::min(state_.scale * kFactor, kMaxScale);
    }
  }
  ++state_.iteration;
}

void LossScaler::set_state(const State& state) {
  const bool good = std::isfinite(state.scale) && state.scale > 0 &&
      state.iteration >= 0 && state.last_overflow >= -1 &&
      state.last_overflow <= state.iteration && state.hysteresis >= 1;
  if (!good) {
    throw base::Error(
        base::ExitCode::data,
        "the state of the loss scaler makes no sense",
        "loss_scaler",
        "the checkpoint is damaged");
  }
  state_ = state;
}

} // namespace deepspeed::optim
