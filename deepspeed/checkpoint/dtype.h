// The element types of tensors in files, with the names each format uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace deepspeed::checkpoint {

enum class DType : uint8_t {
  float64,
  float32,
  float16,
  bfloat16,
  int64,
  int32,
  int16,
  int8,
  uint8,
  boolean, // one byte, 0 or 1
};

// Bytes of one element.
size_t dtype_size(DType dtype);

// As torch prints it, without "torch.": "float32", "bool".
std::string_view dtype_name(DType dtype);
// The class that torch.save names for a storage: "FloatStorage".
std::string_view storage_class(DType dtype);
// The "dtype" of a safetensors header: "F32".
std::string_view safetensors_name(DType dtype);

// The reverse; nothing for a name that is not in the table.
std::optional<DType> dtype_of_name(std::string_view name);
std::optional<DType> dtype_of_storage_class(std::string_view name);
std::optional<DType> dtype_of_safetensors_name(std::string_view name);

} // namespace deepspeed::checkpoint
