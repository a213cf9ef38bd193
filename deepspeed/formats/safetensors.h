// The safetensors format of Hugging Face: a JSON header and raw tensors.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/formats/tensor.h"

namespace deepspeed::formats {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

struct Safetensors {
  std::vector<NamedTensor> tensors; // in the order of their bytes
  // The strings of "__metadata__".
  std::vector<std::pair<std::string, std::string>> metadata;

  // Null if there is no tensor of that name.
  const Tensor* find(const std::string& name) const;
};

// Maps the file; the tensors point into the mapping and keep it alive.
// Error(no_input) if it cannot be opened; Error(data) if the header is over
// 100,000,000 bytes, not strict JSON or repeats a key, or if the tensors leave
// a gap, overlap, or disagree with their shape. Memory is bounded by the size
// of the header.
Safetensors load_safetensors(const std::string& path);

// The same from bytes in memory that `owner` keeps alive.
Safetensors parse_safetensors(
    std::span<const std::byte> bytes,
    std::shared_ptr<const void> owner,
    const std::string& name);

// Writes the tensors in the given order, but those with larger elements first,
// so that each is aligned to its element. "__metadata__" is {"format": "pt"},
// without which transformers refuses a file, and what `metadata` adds. Names
// must be unique and not
// "__metadata__", else std::invalid_argument. Atomic: Error(cannot_create),
// Error(io).
void save_safetensors(
    const std::string& path,
    const std::vector<NamedTensor>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata = {});

} // namespace deepspeed::formats
