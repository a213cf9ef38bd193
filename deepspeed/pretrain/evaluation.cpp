// The loss on a held-out text, with masks that never change.
#include "deepspeed/pretrain/evaluation.h"

namespace deepspeed::pretrain {

bert::Evaluation evaluate(
    bert::RobertaForMaskedLM model,
    const TextSource& source,
    int64_t batch_size,
    int64_t rank,
    int64_t ranks,
    const std::function<bool()>& stop) {
  bert::Evaluation total;
  const auto samples = static_cast<int64_t>(source.cache->size());
  for (int64_t first = rank * batch_size; first < samples && !stop();
       first += ranks * batch_size) {
    const bert::Evaluation part =
        model->evaluate(std::make_shared<bert::Batch>(source.batches->make_eval(
            static_cast<uint64_t>(first), static_cast<uint64_t>(batch_size))));
    total.loss_sum += part.loss_sum;
    total.masked += part.masked;
    total.correct += part.correct;
  }
  return total;
}

} // namespace deepspeed::pretrain
