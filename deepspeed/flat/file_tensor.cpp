// libtorch tensors as the tensors of files, and back.
#include "deepspeed/flat/file_tensor.h"

#include "deepspeed/base/error.h"

namespace deepspeed::flat {
namespace {

using checkpoint::DType;

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
};

DType file_dtype(at::ScalarType type) {
  for (const auto& [file, torch] : kTypes) {
    if (torch == type) {
      return file;
    }
  }
  TORCH_CHECK_VALUE(false, "tensors of ", type, " cannot be stored");
}

at::ScalarType torch_dtype(DType type) {
  for (const auto& [file, torch] : kTypes) {
    if (file == type) {
      return torch;
    }
  }
  TORCH_INTERNAL_ASSERT(false);
}

} // namespace

checkpoint::Tensor FileTensors::add(const at::Tensor& tensor) {
  const auto& memory = tensor.storage();
  auto& storage = storages_[memory.data()];
  if (storage == nullptr) {
    storage = std::make_shared<checkpoint::Storage>(checkpoint::Storage{
        {static_cast<const std::byte*>(memory.data()), memory.nbytes()},
        std::make_shared<at::Tensor>(tensor)});
  }
  checkpoint::Tensor result;
  result.dtype = file_dtype(tensor.scalar_type());
  result.sizes = tensor.sizes().vec();
  result.strides = tensor.strides().vec();
  result.storage_offset = tensor.storage_offset();
  result.storage = storage;
  return result;
}

void copy_from_file(
    const checkpoint::Tensor& source,
    const std::string& name,
    at::Tensor target) {
  if (target.sizes() != at::IntArrayRef(source.sizes)) {
    throw base::Error(
        base::ExitCode::data,
        "the file holds " + checkpoint::describe(source) +
            ", but the model has " +
            checkpoint::describe(FileTensors().add(target)),
        name,
        "load it with the settings it was trained with");
  }
  const at::NoGradGuard no_grad;
  at::Tensor dense = at::empty(source.sizes, torch_dtype(source.dtype));
  source.copy_to(static_cast<std::byte*>(dense.data_ptr()));
  target.copy_(dense);
}

} // namespace deepspeed::flat
