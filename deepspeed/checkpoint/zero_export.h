// From a checkpoint of any stage to plain fp32 weights: what DeepSpeed's
// zero_to_fp32.py does, without Python and without holding the model in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepspeed/checkpoint/zero_checkpoint.h"

namespace deepspeed::checkpoint {

struct ExportOptions {
  // Bytes of tensors in one file; a larger tensor has a file of its own.
  uint64_t max_shard_size = 5'000'000'000;
  bool safetensors = false; // model.safetensors instead of pytorch_model.bin
  bool exclude_frozen = false;
};

// Writes pytorch_model.bin or model.safetensors, or numbered shards of it and
// an index.json, as huggingface_hub splits and names them: buffers, frozen
// parameters, parameters in flat order, tied names. Floating point becomes
// fp32, other buffers stay. Older weights of the format in `folder` are
// removed, with a line that names them. Needs memory for about one tensor.
// Returns the paths written, the index last. Error(cannot_create), Error(io).
std::vector<std::string> export_fp32(
    const ZeroCheckpoint& checkpoint,
    const std::string& folder,
    const ExportOptions& options = {});

// "5GB", "200MB", "10KB", "1TB", powers of ten as in huggingface_hub.
// Error(usage).
uint64_t parse_size(const std::string& text);

} // namespace deepspeed::checkpoint
