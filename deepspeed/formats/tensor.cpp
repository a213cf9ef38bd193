// A tensor of a file: a strided view of bytes that somebody else owns.
#include "deepspeed/formats/tensor.h"

#include <cstring>
#include <utility>

#include "deepspeed/base/error.h"

namespace deepspeed::formats {
namespace {

// Elements from the first to the last one, both included: 0 if there is none.
// Nothing if it does not fit. Sizes and strides are not negative.
std::optional<uint64_t> extent(const Tensor& tensor) {
  uint64_t last = 0;
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    if (tensor.sizes[i] == 0) {
      return 0;
    }
    uint64_t step = 0;
    if (__builtin_mul_overflow(
            static_cast<uint64_t>(tensor.sizes[i] - 1),
            static_cast<uint64_t>(tensor.strides[i]),
            &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
  }
  return last + 1;
}

// Copies the sub-tensor of dimension `d` on, and moves `out` past it.
void gather(
    const Tensor& tensor,
    size_t d,
    const std::byte* from,
    std::byte*& out) {
  const size_t width = dtype_size(tensor.dtype);
  if (d == tensor.sizes.size()) {
    std::memcpy(out, from, width);
    out += width;
    return;
  }
  const size_t size = static_cast<size_t>(tensor.sizes[d]);
  const size_t step = static_cast<size_t>(tensor.strides[d]) * width;
  if (d + 1 == tensor.sizes.size() && step == width) {
    std::memcpy(out, from, size * width);
    out += size * width;
    return;
  }
  for (size_t i = 0; i < size; ++i) {
    gather(tensor, d + 1, from + i * step, out);
  }
}

} // namespace

std::vector<int64_t> contiguous_strides(std::span<const int64_t> sizes) {
  std::vector<int64_t> strides(sizes.size());
  // torch counts an empty dimension as 1 here.
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 0 ? sizes[i] : 1;
  }
  return strides;
}

std::optional<uint64_t> checked_byte_size(
    std::span<const int64_t> sizes,
    DType dtype) {
  uint64_t bytes = dtype_size(dtype);
  bool empty = false;
  for (const int64_t size : sizes) {
    if (size < 0) {
      return std::nullopt;
    }
    empty = empty || size == 0;
    if (size > 0 &&
        __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      return std::nullopt;
    }
  }
  // Strides and counts are int64_t everywhere.
  if (bytes > static_cast<uint64_t>(INT64_MAX)) {
    return std::nullopt;
  }
  return empty ? 0 : bytes;
}

Tensor Tensor::borrow(
    DType dtype,
    std::vector<int64_t> sizes,
    const void* data,
    std::shared_ptr<const void> owner) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.strides = contiguous_strides(sizes);
  tensor.sizes = std::move(sizes);
  auto storage = std::make_shared<Storage>();
  storage->bytes = {static_cast<const std::byte*>(data), tensor.byte_size()};
  storage->owner = std::move(owner);
  tensor.storage = std::move(storage);
  return tensor;
}

Tensor Tensor::deferred(
    DType dtype,
    std::vector<int64_t> sizes,
    std::shared_ptr<const ByteSource> source) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.strides = contiguous_strides(sizes);
  tensor.sizes = std::move(sizes);
  auto storage = std::make_shared<Storage>();
  storage->source = std::move(source);
  tensor.storage = std::move(storage);
  return tensor;
}

int64_t Tensor::numel() const {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  return count;
}

size_t Tensor::byte_size() const {
  return static_cast<size_t>(numel()) * dtype_size(dtype);
}

bool Tensor::is_contiguous() const {
  if (numel() == 0) {
    return true;
  }
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] != 1 && strides[i] != stride) {
      return false;
    }
    stride *= sizes[i];
  }
  return true;
}

std::span<const std::byte> Tensor::contiguous_bytes() const {
  if (!is_contiguous()) {
    throw base::Error(
        base::ExitCode::data,
        "tensor " + describe(*this) + " is not contiguous",
        "",
        "call .contiguous() on it before torch.save");
  }
  if (numel() == 0) {
    return {};
  }
  return storage->bytes.subspan(
      static_cast<size_t>(storage_offset) * dtype_size(dtype), byte_size());
}

void Tensor::copy_to(std::byte* out) const {
  if (numel() == 0) {
    return;
  }
  if (is_contiguous()) {
    const std::span<const std::byte> bytes = contiguous_bytes();
    std::memcpy(out, bytes.data(), bytes.size());
    return;
  }
  const size_t offset = static_cast<size_t>(storage_offset) * dtype_size(dtype);
  gather(*this, 0, storage->bytes.data() + offset, out);
}

std::string tensor_fault(const Tensor& tensor) {
  if (tensor.storage == nullptr) {
    return "no storage";
  }
  if (tensor.sizes.size() != tensor.strides.size()) {
    return std::to_string(tensor.sizes.size()) + " sizes but " +
        std::to_string(tensor.strides.size()) + " strides";
  }
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    if (tensor.sizes[i] < 0 || tensor.strides[i] < 0) {
      return "negative size or stride in dimension " + std::to_string(i);
    }
  }
  if (tensor.storage_offset < 0) {
    return "negative offset " + std::to_string(tensor.storage_offset);
  }
  // An element count that overflows is refused even where strides of 0 would
  // make the extent small: nobody could allocate the result.
  const std::optional<uint64_t> elements = extent(tensor);
  uint64_t end = 0;
  if (!checked_byte_size(tensor.sizes, tensor.dtype) || !elements ||
      __builtin_add_overflow(
          *elements, static_cast<uint64_t>(tensor.storage_offset), &end) ||
      __builtin_mul_overflow(end, dtype_size(tensor.dtype), &end)) {
    return "the element count of " + describe(tensor) + " overflows";
  }
  // torch lets the offset of an empty view lie anywhere.
  if (*elements > 0 && end > tensor.storage->size()) {
    return describe(tensor) + " at offset " +
        std::to_string(tensor.storage_offset) + " needs " +
        std::to_string(end) + " bytes of a storage of " +
        std::to_string(tensor.storage->size());
  }
  return "";
}

std::string describe(const Tensor& tensor) {
  std::string text = std::string(dtype_name(tensor.dtype)) + "[";
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(tensor.sizes[i]);
  }
  return text + "]";
}

} // namespace deepspeed::formats
