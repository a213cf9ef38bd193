// checkpoint.iter_N.pt: all that train_bert needs to go on.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/checkpoint/checkpoint_path.h"
#include "deepspeed/flat/flat_parameters.h"
#include "deepspeed/optim/adam.h"

namespace deepspeed::pretrain {

// What is saved beside weights and optimizer. Order, masks and dropout are
// functions of the stream position, the learning rate is one of the step, so
// this is all that an exact resume needs.
struct LoopState {
  int64_t step = 0; // steps done
  double loss_sum = 0; // since the last log line
  int64_t loss_count = 0;
  // Stream position of the next step: samples that were trained on. -1: the
  // checkpoint does not say, and `ranks` wrote it.
  int64_t samples = -1;
  int64_t ranks = 1;
};

// What a run goes on with.
struct LoadedState {
  LoopState loop;
  std::string name; // of the file or the tag
  // Newer checkpoints that were passed over, and why. The same on all ranks.
  std::vector<std::string> passed_over;
};

// The thing a run trains, seen as files see it.
class TrainedModel {
 public:
  virtual ~TrainedModel() = default;

  // Publishes a checkpoint of `state.step` in `folder`, whole or not at all.
  virtual void save(const std::string& folder, const LoopState& state) = 0;
  // Whose checkpoints it reads and writes.
  virtual checkpoint::CheckpointKind kind() const = 0;
  // Loads the checkpoint that the path names, or the newest whole one of the
  // folder, and says on standard error which newer ones it passed over.
  // Error(no_input) without a checkpoint, Error(data) if none is whole or it is
  // of another model.
  virtual LoadedState load(const checkpoint::CheckpointPath& path) = 0;
  // Whether all weights and moments are finite on this rank.
  virtual bool is_finite() const = 0;
  // The fp32 weights under state-dict names, tied ones once.
  virtual std::vector<bert::NamedTensor> weights() const = 0;
  // Of the file or the folder that save() makes.
  virtual std::string checkpoint_name(int64_t step) const = 0;
  virtual bert::RobertaForMaskedLM model() const = 0;
};

// A model with flat parameters and Adam in one process. Its files are those of
// HelloDeepSpeed's train_bert.py, {"model": state_dict, "optimizer":
// torch.optim.Adam's state_dict}, and hold one more key, "deepspeed_cpp".
// All of them must outlive the object.
class SingleProcessModel : public TrainedModel {
 public:
  SingleProcessModel(
      bert::RobertaForMaskedLM model,
      flat::FlatParameters& parameters,
      optim::Adam& optimizer,
      int64_t keep_last = 0) // checkpoints that stay; 0: all
      : model_(std::move(model)),
        parameters_(parameters),
        optimizer_(optimizer),
        keep_last_(keep_last) {}

  void save(const std::string& folder, const LoopState& state) override;
  checkpoint::CheckpointKind kind() const override {
    return checkpoint::CheckpointKind::steps;
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
  flat::FlatParameters& parameters_;
  optim::Adam& optimizer_;
  int64_t keep_last_;
};

// Only the weights of the checkpoint that the path names, into a model of its
// own. Without a name: of the newest one, or with `newest_whole` the newest
// that is whole. Errors as TrainedModel::load().
void load_step_checkpoint_weights(
    const checkpoint::CheckpointPath& path,
    bool newest_whole,
    bert::RobertaForMaskedLMImpl& model);

} // namespace deepspeed::pretrain
