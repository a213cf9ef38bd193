// Tensors of state dicts that follow from the settings of the model.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/formats/safetensors.h"

namespace deepspeed::pretrain {

// transformers 4 keeps the ids of positions, and in some versions those of
// token types, as buffers of the embedding: "encoder.embeddings.position_ids",
// int64 [1, max_position_embeddings], 0 1 2 ... Our model computes them.
std::vector<bert::NamedTensor> derived_buffers(
    const bert::RobertaConfig& config);

// Error(data) with the place `path` for a tensor of a state dict that is none
// of the model's, unless it is a derived buffer with the right values.
void require_known_names(
    const std::vector<formats::NamedTensor>& tensors,
    const bert::RobertaForMaskedLMImpl& model,
    const std::string& path);

} // namespace deepspeed::pretrain
