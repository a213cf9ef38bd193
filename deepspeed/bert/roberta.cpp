// RoBERTa for masked language modelling, over packed batches.
#include "deepspeed/bert/roberta.h"

#include "deepspeed/bert/embedding_block.h"
#include "deepspeed/bert/encoder_layer.h"
#include "deepspeed/bert/initializer.h"

namespace deepspeed::bert {
namespace {

// The places that drop out, each with a stream of random numbers of its own.
constexpr uint32_t kEmbeddingSite = 0;
constexpr uint32_t kSitesPerLayer = 3;

} // namespace

RobertaForMaskedLMImpl::RobertaForMaskedLMImpl(const RobertaOptions& options)
    : options_(options) {
  validate(options_.config);
  add_embeddings();
  for (int64_t i = 0; i < options_.config.num_hidden_layers; ++i) {
    add_layer(i);
  }
  add_pooler_and_head();
  embeddings_.name.of = "embedding";
  head_.name.of = "head";
}

at::Tensor RobertaForMaskedLMImpl::add_normal(
    const std::string& name,
    at::IntArrayRef sizes) {
  at::Tensor value = at::empty(sizes, at::kFloat);
  fill_normal(
      value, options_.config.initializer_range, options_.seed, initialized_++);
  return add(name, value);
}

at::Tensor RobertaForMaskedLMImpl::add_constant(
    const std::string& name,
    at::IntArrayRef sizes,
    double value) {
  return add(name, at::full(sizes, value, at::kFloat));
}

void RobertaForMaskedLMImpl::add_embeddings() {
  const RobertaConfig& c = options_.config;
  const std::string prefix = "encoder.embeddings.";
  embeddings_.tensors = {
      add_normal(
          prefix + "word_embeddings.weight", {c.vocab_size, c.hidden_size}),
      add_normal(
          prefix + "position_embeddings.weight",
          {c.max_position_embeddings, c.hidden_size}),
      add_normal(
          prefix + "token_type_embeddings.weight",
          {c.type_vocab_size, c.hidden_size}),
      add_constant(prefix + "LayerNorm.weight", {c.hidden_size}, 1),
      add_constant(prefix + "LayerNorm.bias", {c.hidden_size}, 0)};
  // transformers zeroes the padding rows of its embeddings; a tied decoder then
  // draws that of the words again.
  const at::NoGradGuard no_grad;
  embeddings_.tensors[kPositionEmbeddings][c.pad_token_id].zero_();
}

void RobertaForMaskedLMImpl::add_layer(int64_t index) {
  const int64_t h = options_.config.hidden_size;
  const int64_t f = options_.config.intermediate_size;
  const std::string prefix =
      "encoder.encoder.layer." + std::to_string(index) + ".";
  BlockParameters layer;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    layer.tensors.push_back(add_normal(prefix + name + ".weight", {out, in}));
    layer.tensors.push_back(add_constant(prefix + name + ".bias", {out}, 0));
  };
  const auto norm = [&](const std::string& name) {
    layer.tensors.push_back(add_constant(prefix + name + ".weight", {h}, 1));
    layer.tensors.push_back(add_constant(prefix + name + ".bias", {h}, 0));
  };
  linear("attention.self.query", h, h);
  linear("attention.self.key", h, h);
  linear("attention.self.value", h, h);
  linear("attention.output.dense", h, h);
  norm("attention.output.LayerNorm");
  linear("intermediate.dense", f, h);
  linear("output.dense", h, f);
  norm("output.LayerNorm");
  TORCH_INTERNAL_ASSERT(layer.tensors.size() == kLayerParameters);
  layer.name = {"", "layer", index};
  layers_.push_back(std::move(layer));
}

void RobertaForMaskedLMImpl::add_pooler_and_head() {
  const RobertaConfig& c = options_.config;
  if (c.pooler) {
    pooler_ = {
        add_normal(
            "encoder.pooler.dense.weight", {c.hidden_size, c.hidden_size}),
        add_constant("encoder.pooler.dense.bias", {c.hidden_size}, 0)};
  }
  head_.tensors.resize(kHeadParameters);
  head_.tensors[kDecoderBias] = add_constant("lm_head.bias", {c.vocab_size}, 0);
  head_.tensors[kDenseWeight] =
      add_normal("lm_head.dense.weight", {c.hidden_size, c.hidden_size});
  head_.tensors[kDenseBias] =
      add_constant("lm_head.dense.bias", {c.hidden_size}, 0);
  head_.tensors[kHeadNormWeight] =
      add_constant("lm_head.layer_norm.weight", {c.hidden_size}, 1);
  head_.tensors[kHeadNormBias] =
      add_constant("lm_head.layer_norm.bias", {c.hidden_size}, 0);
  head_.tensors[kDecoderWeight] = embeddings_.tensors[kWordEmbeddings];
}

void RobertaForMaskedLMImpl::check(const Batch& batch) const {
  const RobertaConfig& c = options_.config;
  for (const int32_t id : batch.packed().ids) {
    TORCH_CHECK_VALUE(
        id >= 0 && id < c.vocab_size,
        "token id ",
        id,
        " is outside the vocabulary of ",
        c.vocab_size);
  }
  for (const kernels::Sequence& sequence : batch.all_tokens().sequences) {
    TORCH_CHECK_VALUE(
        sequence.length + 2 <= c.max_position_embeddings,
        "a sequence of ",
        sequence.length,
        " tokens is longer than the ",
        c.max_position_embeddings - 2,
        " positions of the model");
  }
}

kernels::Dropout RobertaForMaskedLMImpl::dropout_at(uint32_t site, bool active)
    const {
  return kernels::make_dropout(
      active ? static_cast<float>(options_.config.dropout) : 0.0f,
      options_.seed,
      site);
}

reference::LayerDropouts RobertaForMaskedLMImpl::layer_dropouts(
    size_t layer,
    bool active) const {
  const uint32_t first = 1 + static_cast<uint32_t>(layer) * kSitesPerLayer;
  return {
      dropout_at(first, active),
      dropout_at(first + 1, active),
      dropout_at(first + 2, active)};
}

std::vector<BlockUse> RobertaForMaskedLMImpl::encoder_blocks(
    const std::shared_ptr<const Batch>& batch,
    bool dropout) const {
  const RobertaConfig& c = options_.config;
  const auto eps = static_cast<float>(c.layer_norm_eps);
  std::vector<BlockUse> blocks{
      {make_embedding(
           {&embeddings_, batch, eps, dropout_at(kEmbeddingSite, dropout)}),
       &embeddings_}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    const bool all = i + 1 < layers_.size() || batch->masked() == 0;
    const reference::LayerDropouts dropouts = layer_dropouts(i, dropout);
    blocks.push_back(
        {make_encoder_layer(
             {&layers_[i],
              batch,
              all ? &batch->all_tokens() : &batch->masked_tokens(),
              c.num_attention_heads,
              eps,
              dropouts.attention,
              dropouts.attention_output,
              dropouts.output}),
         &layers_[i]});
  }
  return blocks;
}

at::Tensor RobertaForMaskedLMImpl::reference_encoding(
    const std::shared_ptr<const Batch>& batch,
    bool dropout) const {
  const reference::Site site{*batch, options_.config.layer_norm_eps};
  at::Tensor x;
  {
    const base::Span span(embeddings_.pass("forward"));
    x = reference::embedding(
        site, embeddings_.tensors, dropout_at(kEmbeddingSite, dropout));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const base::Span span(layers_[i].pass("forward"));
    x = reference::encoder_layer(
        site,
        layers_[i].tensors,
        x,
        options_.config.num_attention_heads,
        layer_dropouts(i, dropout));
  }
  return x;
}

HeadArguments RobertaForMaskedLMImpl::head_arguments(
    const std::shared_ptr<const Batch>& batch) const {
  return {&head_, batch, static_cast<float>(options_.config.layer_norm_eps)};
}

at::Tensor RobertaForMaskedLMImpl::forward(std::shared_ptr<const Batch> batch) {
  check(*batch);
  if (options_.implementation == Implementation::fast) {
    std::vector<BlockUse> blocks = encoder_blocks(batch, is_training());
    blocks.push_back({make_mlm_head(head_arguments(batch)), &head_});
    return apply_blocks(std::move(blocks));
  }
  const at::Tensor x = reference_encoding(batch, is_training());
  const base::Span span(head_.pass("forward"));
  if (batch->masked() == 0) {
    return (x * 0).sum().to(at::kFloat);
  }
  const at::Tensor logits = reference::head_logits(
      {*batch, options_.config.layer_norm_eps}, head_.tensors, x);
  const at::Tensor labels =
      at::tensor(at::ArrayRef<int32_t>(batch->packed().labels), at::kInt)
          .to(x.device(), at::kLong);
  return at::cross_entropy_loss(logits.to(at::kFloat), labels);
}

at::Tensor RobertaForMaskedLMImpl::logits(std::shared_ptr<const Batch> batch) {
  const at::NoGradGuard no_grad;
  check(*batch);
  if (options_.implementation == Implementation::reference) {
    return reference::head_logits(
        {*batch, options_.config.layer_norm_eps},
        head_.tensors,
        reference_encoding(batch, /*dropout=*/false));
  }
  if (batch->masked() == 0) {
    return at::empty(
        {0, options_.config.vocab_size}, head_.tensors[kDenseWeight].options());
  }
  return head_logits(
      head_arguments(batch),
      apply_blocks(encoder_blocks(batch, /*dropout=*/false)));
}

Evaluation RobertaForMaskedLMImpl::evaluate(
    std::shared_ptr<const Batch> batch) {
  Evaluation result;
  result.masked = batch->masked();
  if (result.masked == 0) {
    return result;
  }
  const at::NoGradGuard no_grad;
  at::Tensor losses;
  at::Tensor predicted;
  const at::Tensor labels =
      at::tensor(at::ArrayRef<int32_t>(batch->packed().labels), at::kInt);
  if (options_.implementation == Implementation::fast) {
    check(*batch);
    const HeadPrediction prediction = predict(
        head_arguments(batch),
        apply_blocks(encoder_blocks(batch, /*dropout=*/false)));
    losses = prediction.losses;
    predicted = prediction.predicted;
  } else {
    const at::Tensor rows = logits(batch).to(at::kFloat);
    losses = at::cross_entropy_loss(
        rows, labels.to(rows.device(), at::kLong), {}, at::Reduction::None);
    predicted = rows.argmax(1).to(at::kCPU, at::kInt);
  }
  result.loss_sum = losses.to(at::kDouble).sum().item<double>();
  result.correct = predicted.eq(labels).sum().item<int64_t>();
  return result;
}

std::vector<NamedTensor> RobertaForMaskedLMImpl::state_dict_entries() const {
  std::vector<NamedTensor> entries;
  for (const auto& item : named_parameters()) {
    entries.push_back({item.key(), item.value()});
  }
  entries.push_back({"lm_head.decoder.weight", head_.tensors[kDecoderWeight]});
  entries.push_back({"lm_head.decoder.bias", head_.tensors[kDecoderBias]});
  return entries;
}

std::vector<std::pair<std::string, at::Tensor>> RobertaForMaskedLMImpl::
    state_dict() const {
  std::vector<std::pair<std::string, at::Tensor>> entries;
  for (NamedTensor& entry : state_dict_entries()) {
    entries.emplace_back(std::move(entry.name), std::move(entry.tensor));
  }
  return entries;
}

void RobertaForMaskedLMImpl::bind_gradients(
    const std::function<flat::GradientSlot*(const at::Tensor& parameter)>&
        slot_of) {
  if (options_.implementation == Implementation::reference) {
    return; // autograd leaves the gradients in the parameters
  }
  const auto bind = [&](BlockParameters& block) {
    block.slots.clear();
    for (const at::Tensor& tensor : block.tensors) {
      block.slots.push_back(slot_of(tensor));
    }
  };
  bind(embeddings_);
  for (BlockParameters& layer : layers_) {
    bind(layer);
  }
  bind(head_);
  // The head gives all rows a gradient, then the embedding those of its words.
  if (flat::GradientSlot* word = embeddings_.slots[kWordEmbeddings]) {
    word->traits.rows_come_last = true;
  }
  for (const at::Tensor& tensor : pooler_) {
    if (flat::GradientSlot* slot = slot_of(tensor)) {
      slot->traits.is_unused = true;
    }
  }
}

} // namespace deepspeed::bert
