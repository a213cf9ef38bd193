// Pretrains a RoBERTa masked language model in one process: HelloDeepSpeed's
// first program, a plain libtorch training loop.
#include "deepspeed/bert/roberta.h"
#include "deepspeed/optim/adam.h"
#include "deepspeed/pretrain/program.h"
#include "deepspeed/pretrain/run.h"

using namespace deepspeed;

namespace {

int train(pretrain::Run& run) {
  bert::RobertaForMaskedLM model(run.model_options());
  flat::FlatParameters parameters(*model, run.compute_dtype());
  optim::Adam optimizer(parameters, run.adam_options());
  pretrain::SingleProcessModel trained(
      model, parameters, optimizer, run.settings().run.keep_last);
  run.start(trained);

  const auto micro_batches =
      run.settings().optimizer.gradient_accumulation_steps;
  // Of each micro batch in the gradient.
  const at::Tensor weight =
      at::full({}, 1.0 / static_cast<double>(micro_batches), at::kFloat);
  while (run.next_step()) {
    parameters.begin_step();
    for (int64_t micro = 0; micro < micro_batches; ++micro) {
      const at::Tensor loss = model->forward(run.next_batch());
      run.add_loss(loss);
      if (run.updates_early()) {
        optimizer.start_early(
            run.learning_rate(), 1.0, run.wants_gradient_norm());
      }
      loss.backward(weight);
      parameters.collect();
    }
    if (const auto scale = run.gradient_scale(optimizer)) {
      optimizer.step(run.learning_rate(), *scale);
    }
    run.end_step();
  }
  return run.finish();
}

} // namespace

int main(int argc, char** argv) {
  return pretrain::run_training_program(
      argc,
      argv,
      "Pretrain a RoBERTa masked language model.",
      settings::Settings(),
      train);
}
