// The same model in plain libtorch operators: what the fast blocks are checked
// against. One sequence at a time, no fusion; any dtype and device.
#pragma once

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/block.h"
#include "deepspeed/kernels/dropout.h"

namespace deepspeed::bert::reference {

// The multiplier of each element of a hidden state, [tokens, hidden]: 0 for
// what is dropped, 1 / (1 - p) for the rest.
at::Tensor hidden_multiplier(
    const kernels::Dropout& dropout,
    const Batch& batch,
    int64_t hidden);

struct Site {
  const Batch& batch;
  double layer_norm_eps;
};

// See make_embedding(), make_encoder_layer() and make_mlm_head().
at::Tensor embedding(
    const Site& site,
    const std::vector<at::Tensor>& parameters,
    const kernels::Dropout& dropout);

struct LayerDropouts {
  kernels::Dropout attention;
  kernels::Dropout attention_output;
  kernels::Dropout output;
};
at::Tensor encoder_layer(
    const Site& site,
    const std::vector<at::Tensor>& parameters,
    const at::Tensor& input,
    int64_t heads,
    const LayerDropouts& dropouts);

// [masked, vocabulary]
at::Tensor head_logits(
    const Site& site,
    const std::vector<at::Tensor>& parameters,
    const at::Tensor& hidden_states);

} // namespace deepspeed::bert::reference
