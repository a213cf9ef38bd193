// The loss on a held-out text, with masks that never change.
#include "deepspeed/pretrain/evaluation.h"

namespace deepspeed::pretrain {

bert::Evaluation evaluate(
    bert::RobertaForMaskedLM model,
    const TextSource& source,
    int64_t batch_size) {
  bert::Evaluation total;
  for (uint64_t first = 0; first < source.cache->size();
       first += static_cast<uint64_t>(batch_size)) {
    const bert::Evaluation part = model->evaluate(std::make_shared<bert::Batch>(
        source.batches->make_eval(first, static_cast<uint64_t>(batch_size))));
    total.loss_sum += part.loss_sum;
    total.masked += part.masked;
    total.correct += part.correct;
  }
  return total;
}

} // namespace deepspeed::pretrain
