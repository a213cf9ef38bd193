// The element types of tensors in files, with the names each format uses.
#include "deepspeed/formats/dtype.h"

#include <array>

namespace deepspeed::formats {
namespace {

struct Row {
  size_t size;
  std::string_view name;
  std::string_view storage;
  std::string_view safetensors;
};

// In the order of the enumeration.
constexpr std::array<Row, 19> kRows{{
    {8, "float64", "DoubleStorage", "F64"},
    {4, "float32", "FloatStorage", "F32"},
    {2, "float16", "HalfStorage", "F16"},
    {2, "bfloat16", "BFloat16Storage", "BF16"},
    {8, "int64", "LongStorage", "I64"},
    {4, "int32", "IntStorage", "I32"},
    {2, "int16", "ShortStorage", "I16"},
    {1, "int8", "CharStorage", "I8"},
    {1, "uint8", "ByteStorage", "U8"},
    {1, "bool", "BoolStorage", "BOOL"},
    {8, "complex64", "ComplexFloatStorage", "C64"},
    {16, "complex128", "ComplexDoubleStorage", ""},
    {2, "uint16", "", "U16"},
    {4, "uint32", "", "U32"},
    {8, "uint64", "", "U64"},
    {1, "float8_e4m3fn", "", "F8_E4M3"},
    {1, "float8_e5m2", "", "F8_E5M2"},
    {1, "float8_e4m3fnuz", "", "F8_E4M3FNUZ"},
    {1, "float8_e5m2fnuz", "", "F8_E5M2FNUZ"},
}};
static_assert(static_cast<size_t>(DType::float8_e5m2fnuz) == kRows.size() - 1);

constexpr const Row& row(DType dtype) {
  return kRows[static_cast<size_t>(dtype)];
}

std::optional<DType> find(
    std::string_view name,
    std::string_view Row::*column) {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (!name.empty() && kRows[i].*column == name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

} // namespace

std::span<const DType> all_dtypes() {
  static const auto list = [] {
    std::array<DType, kRows.size()> dtypes{};
    for (size_t i = 0; i < dtypes.size(); ++i) {
      dtypes[i] = static_cast<DType>(i);
    }
    return dtypes;
  }();
  return list;
}

size_t dtype_size(DType dtype) {
  return row(dtype).size;
}

std::string_view dtype_name(DType dtype) {
  return row(dtype).name;
}

std::string_view storage_class(DType dtype) {
  return row(dtype).storage;
}

std::string_view safetensors_name(DType dtype) {
  return row(dtype).safetensors;
}

std::optional<DType> dtype_of_name(std::string_view name) {
  return find(name, &Row::name);
}

std::optional<DType> dtype_of_storage_class(std::string_view name) {
  return find(name, &Row::storage);
}

std::optional<DType> dtype_of_safetensors_name(std::string_view name) {
  return find(name, &Row::safetensors);
}

} // namespace deepspeed::formats
