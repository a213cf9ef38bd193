// RoBERTa for masked language modelling, over packed batches.
//
// Liu et al., "RoBERTa" (2019), as transformers implements it: post-LayerNorm
// encoder, learned positions from 2, exact GELU, decoder tied to the word
// embeddings. State-dict names are those of HelloDeepSpeed's RobertaMLMModel.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/block.h"
#include "deepspeed/bert/config.h"
#include "deepspeed/bert/mlm_head.h"
#include "deepspeed/bert/parameter_tree.h"
#include "deepspeed/bert/reference.h"
#include "deepspeed/flat/gradient_slot.h"
#include "deepspeed/flat/state_dict.h"

namespace deepspeed::bert {

enum class Implementation {
  fast, // coarse blocks over the kernels; CPU, fp32 and bf16
  reference, // plain libtorch operators, one sequence at a time; slow
};

struct RobertaOptions {
  RobertaConfig config;
  Implementation implementation = Implementation::fast;
  uint64_t seed = 42; // of the initial weights and of dropout
};

struct Evaluation {
  double loss_sum = 0; // over masked tokens
  int64_t masked = 0;
  int64_t correct = 0; // predicted exactly
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// Parameters are fp32 when it is made; FlatParameters may move and round them.
// train() and eval() switch dropout. Not thread-safe.
class RobertaForMaskedLMImpl : public ParameterTree,
                               public flat::DirectGradients,
                               public flat::StateDictSource {
 public:
  // Initial weights are N(0, initializer_range^2), biases 0, LayerNorm 1 and 0,
  // as transformers initializes RobertaModel. Throws Error(config).
  explicit RobertaForMaskedLMImpl(const RobertaOptions& options);

  // The mean cross-entropy over the masked tokens: a scalar, fp32.
  at::Tensor forward(std::shared_ptr<const Batch> batch);
  // Without dropout and without gradients, whatever the mode.
  Evaluation evaluate(std::shared_ptr<const Batch> batch);
  // [masked, vocabulary] for the masked tokens of a batch, likewise.
  at::Tensor logits(std::shared_ptr<const Batch> batch);

  const RobertaConfig& config() const {
    return options_.config;
  }
  // The entries of Python's state_dict(), in its order: parameters(), then the
  // tied decoder weight and bias, which share memory with them.
  std::vector<NamedTensor> state_dict_entries() const;
  std::vector<std::pair<std::string, at::Tensor>> state_dict() const override;

  void bind_gradients(
      const std::function<flat::GradientSlot*(const at::Tensor& parameter)>&
          slot_of) override;

 private:
  void add_embeddings();
  void add_layer(int64_t index);
  void add_pooler_and_head();
  at::Tensor add_normal(const std::string& name, at::IntArrayRef sizes);
  at::Tensor add_constant(
      const std::string& name,
      at::IntArrayRef sizes,
      double value);

  void check(const Batch& batch) const;
  kernels::Dropout dropout_at(uint32_t site, bool active) const;
  reference::LayerDropouts layer_dropouts(size_t layer, bool active) const;
  // Up to the last layer's output for the masked tokens, [masked, hidden], or
  // for all if there is none.
  std::vector<BlockUse> encoder_blocks(
      const std::shared_ptr<const Batch>& batch,
      bool dropout) const;
  HeadArguments head_arguments(const std::shared_ptr<const Batch>& batch) const;
  // [tokens, hidden], by the reference path.
  at::Tensor reference_encoding(
      const std::shared_ptr<const Batch>& batch,
      bool dropout) const;

  const RobertaOptions options_;
  uint32_t initialized_ = 0; // parameters drawn so far: the generator's stream
  BlockParameters embeddings_;
  std::vector<BlockParameters> layers_;
  BlockParameters head_;
  std::vector<at::Tensor> pooler_; // kept for the files, never computed
};
TORCH_MODULE(RobertaForMaskedLM);

} // namespace deepspeed::bert
