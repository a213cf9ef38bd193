// The same model in plain libtorch operators: what the fast blocks are checked
// against.
#include "deepspeed/bert/reference.h"

#include <cmath>

#include "deepspeed/bert/embedding_block.h"
#include "deepspeed/bert/encoder_layer.h"
#include "deepspeed/bert/mlm_head.h"

namespace deepspeed::bert::reference {
namespace {

// One row of multipliers, from the definition in kernels/dropout.h.
void fill_multipliers(
    const kernels::Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    at::TensorAccessor<float, 1> out) {
  for (int64_t column = 0; column < out.size(0); ++column) {
    const auto words = base::philox(
        {row,
         static_cast<uint32_t>(column / 8),
         static_cast<uint32_t>(visit),
         static_cast<uint32_t>(visit >> 32)},
        dropout.key);
    const uint32_t word = words[column % 8 / 2];
    const uint32_t bits = column % 2 == 0 ? word & 0xffff : word >> 16;
    out[column] = bits < dropout.threshold ? 0.0f : dropout.scale;
  }
}

// [heads, length, length]
at::Tensor attention_multiplier(
    const kernels::Dropout& dropout,
    const kernels::Sequence& sequence,
    int64_t heads) {
  at::Tensor multiplier =
      at::empty({heads, sequence.length, sequence.length}, at::kFloat);
  auto values = multiplier.accessor<float, 3>();
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t query = 0; query < sequence.length; ++query) {
      fill_multipliers(
          dropout,
          sequence.visit,
          static_cast<uint32_t>(head << 16 | query),
          values[head][query]);
    }
  }
  return multiplier;
}

at::Tensor drop(const at::Tensor& x, const at::Tensor& multiplier) {
  return x * multiplier.to(x.options());
}

at::Tensor norm(
    const Site& site,
    const at::Tensor& x,
    const at::Tensor& gamma,
    const at::Tensor& beta) {
  return at::layer_norm(x, {x.size(-1)}, gamma, beta, site.layer_norm_eps);
}

at::Tensor indices(const std::vector<int32_t>& values, const at::Tensor& like) {
  return at::tensor(at::ArrayRef<int32_t>(values), at::kInt)
      .to(like.device(), at::kLong);
}

at::Tensor self_attention(
    const Batch& batch,
    const std::vector<at::Tensor>& p,
    const at::Tensor& input,
    int64_t heads,
    const kernels::Dropout& dropout) {
  const at::Tensor q = at::linear(input, p[kQueryWeight], p[kQueryBias]);
  const at::Tensor k = at::linear(input, p[kKeyWeight], p[kKeyBias]);
  const at::Tensor v = at::linear(input, p[kValueWeight], p[kValueBias]);
  const int64_t hidden = input.size(1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(hidden / heads));
  std::vector<at::Tensor> outputs;
  for (const kernels::Sequence& sequence : batch.all_tokens().sequences) {
    // [heads, length, head_dim]
    const auto split = [&](const at::Tensor& x) {
      return x.narrow(0, sequence.first, sequence.length)
          .view({sequence.length, heads, hidden / heads})
          .transpose(0, 1);
    };
    at::Tensor probabilities =
        at::softmax(at::matmul(split(q), split(k).transpose(1, 2)) * scale, -1);
    if (dropout.active()) {
      probabilities =
          drop(probabilities, attention_multiplier(dropout, sequence, heads));
    }
    outputs.push_back(at::matmul(probabilities, split(v))
                          .transpose(0, 1)
                          .reshape({sequence.length, hidden}));
  }
  return at::cat(outputs);
}

} // namespace

at::Tensor hidden_multiplier(
    const kernels::Dropout& dropout,
    const Batch& batch,
    int64_t hidden) {
  at::Tensor multiplier = at::empty({batch.tokens(), hidden}, at::kFloat);
  auto values = multiplier.accessor<float, 2>();
  const kernels::TokenKeys keys = batch.all_tokens().keys();
  for (int64_t token = 0; token < batch.tokens(); ++token) {
    fill_multipliers(
        dropout, keys.visit[token], keys.position[token], values[token]);
  }
  return multiplier;
}

at::Tensor embedding(
    const Site& site,
    const std::vector<at::Tensor>& p,
    const kernels::Dropout& dropout) {
  const text::PackedBatch& packed = site.batch.packed();
  const at::Tensor& words = p[kWordEmbeddings];
  const at::Tensor sum = words.index_select(0, indices(packed.ids, words)) +
      p[kPositionEmbeddings].index_select(0, indices(packed.positions, words)) +
      p[kTokenTypeEmbeddings].select(0, 0);
  const at::Tensor y =
      norm(site, sum, p[kEmbeddingNormWeight], p[kEmbeddingNormBias]);
  return dropout.active()
      ? drop(y, hidden_multiplier(dropout, site.batch, y.size(1)))
      : y;
}

at::Tensor encoder_layer(
    const Site& site,
    const std::vector<at::Tensor>& p,
    const at::Tensor& input,
    int64_t heads,
    const LayerDropouts& dropouts) {
  const auto maybe_drop = [&](const at::Tensor& x,
                              const kernels::Dropout& dropout) {
    return dropout.active()
        ? drop(x, hidden_multiplier(dropout, site.batch, x.size(1)))
        : x;
  };
  const at::Tensor context =
      self_attention(site.batch, p, input, heads, dropouts.attention);
  const at::Tensor projected = maybe_drop(
      at::linear(context, p[kAttentionOutputWeight], p[kAttentionOutputBias]),
      dropouts.attention_output);
  const at::Tensor middle = norm(
      site, projected + input, p[kAttentionNormWeight], p[kAttentionNormBias]);
  const at::Tensor activated = at::gelu(
      at::linear(middle, p[kIntermediateWeight], p[kIntermediateBias]));
  const at::Tensor output = maybe_drop(
      at::linear(activated, p[kOutputWeight], p[kOutputBias]), dropouts.output);
  return norm(site, output + middle, p[kOutputNormWeight], p[kOutputNormBias]);
}

at::Tensor head_logits(
    const Site& site,
    const std::vector<at::Tensor>& p,
    const at::Tensor& hidden_states) {
  const at::Tensor rows = hidden_states.index_select(
      0, indices(site.batch.masked_tokens().rows, hidden_states));
  const at::Tensor dense =
      at::gelu(at::linear(rows, p[kDenseWeight], p[kDenseBias]));
  return at::linear(
      norm(site, dense, p[kHeadNormWeight], p[kHeadNormBias]),
      p[kDecoderWeight],
      p[kDecoderBias]);
}

} // namespace deepspeed::bert::reference
