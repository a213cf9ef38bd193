// The loss on a held-out text, with masks that never change.
#pragma once

#include <cmath>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/pretrain/data.h"

namespace deepspeed::pretrain {

// Over the samples of `source` in batches of `batch_size`, every `ranks`-th
// batch from the `rank`-th on.
bert::Evaluation evaluate(
    bert::RobertaForMaskedLM model,
    const TextSource& source,
    int64_t batch_size,
    int64_t rank,
    int64_t ranks);

inline double mean_loss(const bert::Evaluation& evaluation) {
  return evaluation.loss_sum / static_cast<double>(evaluation.masked);
}

} // namespace deepspeed::pretrain
