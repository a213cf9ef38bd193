// A tensor of a file: a strided view of bytes that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "deepspeed/formats/dtype.h"

namespace deepspeed::formats {

using ByteSink = std::function<void(std::span<const std::byte>)>;

// Makes bytes piece by piece while a file is written, for what would not fit
// into memory.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  // Exactly size() bytes.
  virtual void write_to(const ByteSink& sink) const = 0;
};

// Bytes that one or more tensors view. Two tensors that point to the same
// Storage object share memory, and a torch file holds those bytes once.
struct Storage {
  std::span<const std::byte> bytes;
  // Keeps `bytes` alive. Null: the maker of the storage sees to it.
  std::shared_ptr<const void> owner;
  // If set, `bytes` is empty: tensors of this storage can be written to a file
  // and nothing else.
  std::shared_ptr<const ByteSource> source = nullptr;

  uint64_t size() const {
    return source == nullptr ? bytes.size() : source->size();
  }
};

// Sizes, strides and the offset count elements. Plain data, safe to share
// between threads as long as nobody changes the bytes.
struct Tensor {
  DType dtype = DType::float32;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t storage_offset = 0;
  std::shared_ptr<const Storage> storage;
  bool requires_grad = false;
  bool is_parameter = false; // torch.nn.Parameter

  // A dense row-major tensor over `data`, without a copy. The bytes must stay
  // unchanged until the tensor is written; `owner` may keep them alive.
  static Tensor borrow(
      DType dtype,
      std::vector<int64_t> sizes,
      const void* data,
      std::shared_ptr<const void> owner = nullptr);
  // A dense row-major tensor whose bytes are made when it is written.
  static Tensor deferred(
      DType dtype,
      std::vector<int64_t> sizes,
      std::shared_ptr<const ByteSource> source);

  // Elements; 1 for a scalar (no sizes), 0 if a size is 0.
  int64_t numel() const;
  // Bytes of the elements, stored densely.
  size_t byte_size() const;
  // True if the elements lie densely in row-major order.
  bool is_contiguous() const;
  // The elements in place. Error(data) if they do not lie contiguously.
  std::span<const std::byte> contiguous_bytes() const;
  // Gathers the elements in row-major order; `out` has byte_size() bytes.
  void copy_to(std::byte* out) const;
};

// Dense row-major strides.
std::vector<int64_t> contiguous_strides(std::span<const int64_t> sizes);

// The product of the sizes times the element size; nothing if a size is
// negative or the product does not fit.
std::optional<uint64_t> checked_byte_size(
    std::span<const int64_t> sizes,
    DType dtype);

// What keeps the tensor from being a view of its storage, in words: a negative
// size or stride, or an extent past the end. Empty if it is sound. Every tensor
// that comes out of a file has passed this.
std::string tensor_fault(const Tensor& tensor);

// "float32[3, 4]", for messages.
std::string describe(const Tensor& tensor);

} // namespace deepspeed::formats
