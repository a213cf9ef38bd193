// The loss on a held-out text, with masks that never change.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/pretrain/data.h"

namespace deepspeed::pretrain {

// Over the samples of `source` in batches of `batch_size`, every `ranks`-th
// batch from the `rank`-th on. What it has so far when stop() says so.
bert::Evaluation evaluate(
    bert::RobertaForMaskedLM model,
    const TextSource& source,
    int64_t batch_size,
    int64_t rank,
    int64_t ranks,
    const std::function<bool()>& stop);

inline double mean_loss(const bert::Evaluation& evaluation) {
  return evaluation.loss_sum / static_cast<double>(evaluation.masked);
}

} // namespace deepspeed::pretrain
