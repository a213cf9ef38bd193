// The embedding of RoBERTa as one block.
#include "deepspeed/bert/embedding_block.h"

#include <algorithm>

#include "deepspeed/ops/operations.h"

namespace deepspeed::bert {
namespace {

class Embedding : public Block {
 public:
  explicit Embedding(const EmbeddingArguments& arguments)
      : batch_(arguments.batch), ops_(arguments.parameters->operations()) {
    const auto& parameters = arguments.parameters->tensors;
    inputs_.ids = batch_->packed().ids;
    inputs_.positions = batch_->packed().positions;
    inputs_.word = parameters[kWordEmbeddings];
    inputs_.position = parameters[kPositionEmbeddings];
    inputs_.type = parameters[kTokenTypeEmbeddings];
    inputs_.gamma = parameters[kEmbeddingNormWeight];
    inputs_.beta = parameters[kEmbeddingNormBias];
    inputs_.eps = arguments.layer_norm_eps;
    inputs_.dropout = arguments.dropout;
    inputs_.tokens = batch_->all_tokens().keys();
  }

  at::Tensor forward(const at::Tensor& /*none*/) override {
    return ops_.embedding(inputs_, saved_);
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    flat::RowGradients* late = gradients.late_rows(kWordEmbeddings);
    std::vector<int32_t> places;
    const ops::GradientTarget word = late == nullptr
        ? gradients.take(kWordEmbeddings)
        : make_rows(*late, places);
    ops_.embedding_backward(
        inputs_,
        output_gradient.contiguous(),
        saved_,
        {word,
         late == nullptr ? batch_->packed().ids : places,
         gradients.take(kPositionEmbeddings),
         gradients.take(kTokenTypeEmbeddings),
         gradients.take(kEmbeddingNormWeight),
         gradients.take(kEmbeddingNormBias)});
    return {};
  }

 private:
  // A row of zeros for each word of the batch; places[t] is that of token t.
  ops::GradientTarget make_rows(
      flat::RowGradients& late,
      std::vector<int32_t>& places) const {
    const std::vector<int64_t>& words = batch_->words();
    for (const int32_t id : batch_->packed().ids) {
      const auto word = std::lower_bound(words.begin(), words.end(), id);
      places.push_back(static_cast<int32_t>(word - words.begin()));
    }
    late.rows = words;
    late.values = at::zeros(
        {static_cast<int64_t>(words.size()), inputs_.word.size(1)}, at::kFloat);
    return {late.values, /*add=*/true};
  }

  const std::shared_ptr<const Batch> batch_;
  const ops::Operations& ops_;
  ops::EmbeddingInputs inputs_;
  ops::SavedNorm saved_;
};

} // namespace

std::shared_ptr<Block> make_embedding(const EmbeddingArguments& arguments) {
  return std::make_shared<Embedding>(arguments);
}

} // namespace deepspeed::bert
