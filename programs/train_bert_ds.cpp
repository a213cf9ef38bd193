// Pretrains a RoBERTa masked language model with DeepSpeed's engine:
// HelloDeepSpeed's second program. The difference to train_bert.cpp is the
// tutorial.
#include "deepspeed/bert/roberta.h"
#include "deepspeed/engine/engine.h"
#include "deepspeed/pretrain/engine_model.h"
#include "deepspeed/pretrain/program.h"
#include "deepspeed/pretrain/run.h"

using namespace deepspeed;

namespace {

int train(pretrain::Run& run) {
  bert::RobertaForMaskedLM model(run.model_options());
  Engine engine = initialize(model, run.engine_config(), run.engine_options());
  pretrain::EngineModel trained(model, engine, run.settings().run.keep_last);
  run.start(trained);

  const auto micro_batches =
      run.settings().optimizer.gradient_accumulation_steps;
  while (run.next_step()) {
    const double learning_rate = engine.get_lr()[0];
    for (int64_t micro = 0; micro < micro_batches; ++micro) {
      const at::Tensor loss = model->forward(run.next_batch());
      run.add_loss(loss);
      engine.backward(loss);
      engine.step();
    }
    run.end_step(learning_rate, engine.get_global_grad_norm());
  }
  return run.finish();
}

} // namespace

int main(int argc, char** argv) {
  return pretrain::run_training_program(
      argc,
      argv,
      "Pretrain a RoBERTa masked language model with DeepSpeed's engine.",
      settings::engine_defaults(),
      train);
}
