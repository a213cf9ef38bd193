// The factor that keeps fp16 gradients away from zero. No torch.
#pragma once

#include <cstdint>

#include "deepspeed/config/sections.h"

namespace deepspeed::optim {

// DeepSpeed's rule (deepspeed/runtime/fp16/loss_scaler.py), the same for all
// ZeRO stages; DeepSpeed's stage 0 ignores the hysteresis and never stops.
//
// Gradients must be divided by the scale that their loss was multiplied with:
// read scale() before update(). (DeepSpeed 0.19.8 divides by the new scale, so
// a step at which the scale grows is half a step there.)
class LossScaler {
 public:
  // What a checkpoint keeps.
  struct State {
    double scale = 1.0;
    int64_t iteration = 0; // updates so far
    int64_t last_overflow = -1; // the iteration of it
    int64_t hysteresis = 1; // overflows left until the scale is halved
  };

  // Scale 1 unless fp16 is enabled, fixed if loss_scale is not 0.
  explicit LossScaler(const config::Fp16& fp16);

  double scale() const {
    return state_.scale;
  }
  bool dynamic() const {
    return dynamic_;
  }

  // Once for each optimizer step, applied or skipped. `overflow` is the same on
  // all ranks. Error(internal) if the scale should fall below min_loss_scale;
  // the state stays what it was.
  void update(bool overflow);

  const State& state() const {
    return state_;
  }
  // Error(data) for a state that no run can reach.
  void set_state(const State& state);

 private:
  config::Fp16 fp16_;
  bool dynamic_;
  State state_;
};

} // namespace deepspeed::optim
