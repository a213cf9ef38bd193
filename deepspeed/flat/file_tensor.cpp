// libtorch tensors as the tensors of files, and back.
#include "deepspeed/flat/file_tensor.h"

#include <ATen/MemoryOverlap.h>

#include <cmath>
#include <stdexcept>

#include "deepspeed/base/error.h"

namespace deepspeed::flat {
namespace {

using formats::DType;

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::float64, at::kDouble},
    {DType::float32, at::kFloat},
    {DType::float16, at::kHalf},
    {DType::bfloat16, at::kBFloat16},
    {DType::int64, at::kLong},
    {DType::int32, at::kInt},
    {DType::int16, at::kShort},
    {DType::int8, at::kChar},
    {DType::uint8, at::kByte},
    {DType::boolean, at::kBool},
    {DType::complex64, at::kComplexFloat},
    {DType::complex128, at::kComplexDouble},
    {DType::uint16, at::kUInt16},
    {DType::uint32, at::kUInt32},
    {DType::uint64, at::kUInt64},
    {DType::float8_e4m3fn, at::kFloat8_e4m3fn},
    {DType::float8_e5m2, at::kFloat8_e5m2},
    {DType::float8_e4m3fnuz, at::kFloat8_e4m3fnuz},
    {DType::float8_e5m2fnuz, at::kFloat8_e5m2fnuz},
};

std::optional<DType> file_dtype(at::ScalarType type) {
  for (const auto& [file, torch] : kTypes) {
    if (torch == type) {
      return file;
    }
  }
  return std::nullopt;
}

at::ScalarType torch_dtype(DType type) {
  for (const auto& [file, torch] : kTypes) {
    if (file == type) {
      return torch;
    }
  }
  TORCH_INTERNAL_ASSERT(false);
}

at::Tensor dense_of(const formats::Tensor& source) {
  at::Tensor dense = at::empty(source.sizes, torch_dtype(source.dtype));
  source.copy_to(static_cast<std::byte*>(dense.data_ptr()));
  return dense;
}

base::Error unfit(
    const formats::Tensor& source,
    const std::string& name,
    const at::Tensor& target) {
  return base::Error(
      base::ExitCode::data,
      "the file holds " + formats::describe(source) + ", but the model has " +
          formats::describe(FileTensors().add(target)),
      name,
      "load it with the settings it was trained with");
}

} // namespace

std::string storage_fault(const at::Tensor& tensor) {
  if (tensor.is_quantized()) {
    return "is quantized";
  }
  if (tensor.is_nested()) {
    return "is nested";
  }
  if (tensor.is_meta()) {
    return "has no values (device meta)";
  }
  if (tensor.layout() != at::kStrided) {
    return "has the layout " + c10::str(tensor.layout());
  }
  if (at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    return "has elements that share memory (expand(); clone() parts them)";
  }
  return file_dtype(tensor.scalar_type())
      ? ""
      : std::string("has the dtype ") + at::toString(tensor.scalar_type());
}

formats::Tensor FileTensors::add(const at::Tensor& given) {
  if (const std::string fault = storage_fault(given); !fault.empty()) {
    throw std::invalid_argument("a tensor that cannot be stored: it " + fault);
  }
  at::Tensor tensor = given.resolve_conj().resolve_neg();
  // A view of bytes that are no whole number of elements.
  if (tensor.storage().nbytes() % tensor.element_size() != 0) {
    tensor = tensor.clone();
  }
  const auto& memory = tensor.storage();
  auto& storage = storages_[memory.data()];
  if (storage == nullptr) {
    storage = std::make_shared<formats::Storage>(formats::Storage{
        {static_cast<const std::byte*>(memory.data()), memory.nbytes()},
        std::make_shared<at::Tensor>(tensor)});
  }
  formats::Tensor result;
  result.dtype = *file_dtype(tensor.scalar_type());
  result.sizes = tensor.sizes().vec();
  result.strides = tensor.strides().vec();
  result.storage_offset = tensor.storage_offset();
  result.storage = storage;
  return result;
}

bool is_finite(const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    return true;
  }
  const auto [low, high] = at::aminmax(tensor); // NaN if one element is
  return std::isfinite(low.item<double>()) &&
      std::isfinite(high.item<double>());
}

void require_fit(
    const formats::Tensor& source,
    const std::string& name,
    const at::Tensor& target) {
  if (target.sizes() != at::IntArrayRef(source.sizes)) {
    throw unfit(source, name, target);
  }
  const at::ScalarType from = torch_dtype(source.dtype);
  const at::ScalarType to = target.scalar_type();
  if (from == to || at::isComplexType(to) ||
      (at::isFloatingType(to) && !at::isComplexType(from))) {
    return;
  }
  // Masks were bytes once: 0 and 1 fit.
  const at::NoGradGuard no_grad;
  const at::Tensor dense = dense_of(source);
  const bool complex = at::isComplexType(from);
  const at::Tensor real = complex ? at::real(dense) : dense;
  const at::Tensor back = real.to(to).to(real.scalar_type());
  if (!back.equal(real) || (complex && at::imag(dense).any().item<bool>())) {
    throw unfit(source, name, target);
  }
}

void copy_from_file(
    const formats::Tensor& source,
    const std::string& name,
    at::Tensor target) {
  require_fit(source, name, target);
  const at::NoGradGuard no_grad;
  target.copy_(dense_of(source));
}

void check_equal(
    const formats::Tensor& source,
    const std::string& name,
    const at::Tensor& expected) {
  const at::Tensor found = at::empty_like(expected);
  copy_from_file(source, name, found);
  if (!found.equal(expected)) {
    throw base::Error(
        base::ExitCode::data,
        "the file holds other values than the model computes",
        name,
        "this checkpoint belongs to another model");
  }
}

} // namespace deepspeed::flat
