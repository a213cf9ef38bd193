// The element types of tensors in files, with the names each format uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace deepspeed::formats {

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
  complex64, // two float32
  complex128,
  uint16,
  uint32,
  uint64,
  float8_e4m3fn,
  float8_e5m2,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
};

std::span<const DType> all_dtypes();

// Bytes of one element.
size_t dtype_size(DType dtype);

// As torch prints it, without "torch.": "float32", "bool".
std::string_view dtype_name(DType dtype);
// The class that torch.save names for a storage: "FloatStorage". Empty for
// dtypes that came after those classes: their storages are untyped.
std::string_view storage_class(DType dtype);
// The "dtype" of a safetensors header: "F32". Empty where there is none.
std::string_view safetensors_name(DType dtype);

// The reverse; nothing for a name that is not in the table.
std::optional<DType> dtype_of_name(std::string_view name);
std::optional<DType> dtype_of_storage_class(std::string_view name);
std::optional<DType> dtype_of_safetensors_name(std::string_view name);

} // namespace deepspeed::formats
