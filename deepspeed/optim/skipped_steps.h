// Updates that are left out because a loss or a gradient is not finite.
#pragma once

#include <cstdint>

namespace deepspeed::optim {

// How long a run of them may be: then the weights are lost, or the learning
// rate is too large, and going on is no use. Not for a dynamic loss scale,
// which skips steps until it is small enough.
class SkippedSteps {
 public:
  static constexpr int64_t kGiveUpAfter = 10;

  void count(bool skipped) {
    in_a_row_ = skipped ? in_a_row_ + 1 : 0;
  }
  int64_t in_a_row() const {
    return in_a_row_;
  }
  bool is_hopeless() const {
    return in_a_row_ >= kGiveUpAfter;
  }

 private:
  int64_t in_a_row_ = 0;
};

} // namespace deepspeed::optim
