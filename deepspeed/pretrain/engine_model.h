// The model of train_bert_ds, seen as files see it.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/engine/engine.h"
#include "deepspeed/pretrain/step_checkpoint.h"

namespace deepspeed::pretrain {

// Its files are DeepSpeed's, with client_state {"checkpoint_step": ...} as in
// HelloDeepSpeed's train_bert_ds.py, and one more key, "train_bert_ds"; what
// else stood in the checkpoint that was loaded is saved again. Model and engine
// must outlive the object. All ranks make the same calls.
class EngineModel : public TrainedModel {
 public:
  EngineModel(bert::RobertaForMaskedLM model, Engine& engine, int64_t keep_last)
      : model_(std::move(model)), engine_(engine), keep_last_(keep_last) {}

  void save(const std::string& folder, const LoopState& state) override;
  checkpoint::CheckpointKind kind() const override {
    return checkpoint::CheckpointKind::tags;
  }
  LoadedState load(const checkpoint::CheckpointPath& path) override;
  bool is_finite() const override;
  std::vector<bert::NamedTensor> weights() const override;
  std::string checkpoint_name(int64_t step) const override;
  bert::RobertaForMaskedLM model() const override {
    return model_;
  }

 private:
  bert::RobertaForMaskedLM model_;
  Engine& engine_;
  int64_t keep_last_; // checkpoints that stay; 0: all
  formats::Value client_state_ = formats::make_dict();
};

// Only the weights of a checkpoint of DeepSpeed, into a model of its own: as
// load_step_checkpoint_weights().
void load_engine_checkpoint_weights(
    const checkpoint::CheckpointPath& path,
    bool newest_whole,
    bert::RobertaForMaskedLMImpl& model);

} // namespace deepspeed::pretrain
