// How much arithmetic training takes, and how fast this machine does it.
#include "deepspeed/bert/flops.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "deepspeed/ops/operations.h"

namespace deepspeed::bert {

double training_flops(const RobertaConfig& config, const Batch& batch) {
  const auto h = static_cast<double>(config.hidden_size);
  const auto f = static_cast<double>(config.intermediate_size);
  const auto v = static_cast<double>(config.vocab_size);
  const auto layer = [&](const OutputTokens& outputs) {
    double scores = 0; // of one head
    for (const kernels::Sequence& sequence : outputs.sequences) {
      scores += static_cast<double>(sequence.length * sequence.queries);
    }
    return static_cast<double>(batch.tokens()) * 4 * h * h +
        static_cast<double>(outputs.count()) * 4 * (h * h + h * f) +
        4 * h * scores;
  };
  const double layers = static_cast<double>(config.num_hidden_layers - 1) *
          layer(batch.all_tokens()) +
      layer(batch.masked_tokens());
  const double head = static_cast<double>(batch.masked()) * 2 * (h * h + h * v);
  return 3 * (layers + head);
}

double measure_product_peak(at::ScalarType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 1024;
  constexpr double kSeconds = 0.25;
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::ones({kSize, kSize}, dtype);
  const at::Tensor b = at::ones({kSize, kSize}, dtype);
  const ops::Operations& operations = ops::operations_on(at::kCPU);
  const auto multiply = [&] {
    ops::run_now(
        [&](flat::TaskList& tasks) { return operations.product(tasks, a, b); });
  };
  multiply(); // the first one sets the library up
  double best = std::numeric_limits<double>::infinity();
  for (double all = 0; all < kSeconds;) {
    const Clock::time_point start = Clock::now();
    multiply();
    const double seconds =
        std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    all += seconds;
  }
  return 2.0 * kSize * kSize * kSize / best;
}

} // namespace deepspeed::bert
