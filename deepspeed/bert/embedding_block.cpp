// The embedding of RoBERTa as one block.
#include "deepspeed/bert/embedding_block.h"

#include "deepspeed/bert/functional.h"

namespace deepspeed::bert {
namespace {

class Embedding : public Block {
 public:
  explicit Embedding(const EmbeddingArguments& arguments)
      : batch_(arguments.batch) {
    const auto& parameters = arguments.parameters->tensors;
    inputs_.batch = batch_.get();
    inputs_.word = parameters[kWordEmbeddings];
    inputs_.position = parameters[kPositionEmbeddings];
    inputs_.type = parameters[kTokenTypeEmbeddings];
    inputs_.gamma = parameters[kEmbeddingNormWeight];
    inputs_.beta = parameters[kEmbeddingNormBias];
    inputs_.eps = arguments.layer_norm_eps;
    inputs_.dropout = arguments.dropout;
  }

  at::Tensor forward(const at::Tensor& /*none*/) override {
    return embedding(inputs_, saved_);
  }

  at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) override {
    embedding_backward(
        inputs_,
        output_gradient.contiguous(),
        saved_,
        {gradients.take(kWordEmbeddings),
         gradients.take(kPositionEmbeddings),
         gradients.take(kTokenTypeEmbeddings),
         gradients.take(kEmbeddingNormWeight),
         gradients.take(kEmbeddingNormBias)});
    return {};
  }

 private:
  const std::shared_ptr<const Batch> batch_;
  EmbeddingInputs inputs_;
  SavedNorm saved_;
};

} // namespace

std::shared_ptr<Block> make_embedding(const EmbeddingArguments& arguments) {
  return std::make_shared<Embedding>(arguments);
}

} // namespace deepspeed::bert
