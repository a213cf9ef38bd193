// Flat elements that lie in several tensors, read as floats.
#include "deepspeed/checkpoint/flat_image.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::checkpoint {
namespace {

// The bytes of a file may lie at any address.
template <typename T>
void convert(const std::byte* from, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

void convert(
    formats::DType dtype,
    const std::byte* from,
    size_t n,
    float* out) {
  switch (dtype) {
    case formats::DType::float32:
      std::memcpy(out, from, n * sizeof(float));
      return;
    case formats::DType::float64:
      return convert<double>(from, n, out);
    case formats::DType::float16:
      return convert<base::Float16>(from, n, out);
    case formats::DType::bfloat16:
      return convert<base::BFloat16>(from, n, out);
    default:
      throw std::invalid_argument(
          std::string(formats::dtype_name(dtype)) + " elements are not floats");
  }
}

} // namespace

bool is_floating(formats::DType dtype) {
  return dtype == formats::DType::float64 || dtype == formats::DType::float32 ||
      dtype == formats::DType::float16 || dtype == formats::DType::bfloat16;
}

void read_floats(
    const formats::Tensor& tensor,
    int64_t begin,
    int64_t end,
    float* out) {
  if (begin < 0 || begin > end || end > tensor.numel()) {
    throw std::out_of_range(
        "elements " + std::to_string(begin) + " to " + std::to_string(end) +
        " of " + formats::describe(tensor));
  }
  if (begin == end) {
    return;
  }
  const size_t width = formats::dtype_size(tensor.dtype);
  const size_t from = static_cast<size_t>(begin) * width;
  const size_t count = static_cast<size_t>(end - begin);
  if (tensor.is_contiguous()) {
    convert(tensor.dtype, tensor.contiguous_bytes().data() + from, count, out);
    return;
  }
  std::vector<std::byte> gathered(tensor.byte_size());
  tensor.copy_to(gathered.data());
  convert(tensor.dtype, gathered.data() + from, count, out);
}

void FlatImage::add(int64_t begin, int64_t numel, formats::Tensor tensor) {
  if (numel > tensor.numel() ||
      (!pieces_.empty() && begin < pieces_.back().end)) {
    throw std::invalid_argument("pieces overlap or are too short");
  }
  if (numel > 0) {
    pieces_.push_back({begin, begin + numel, std::move(tensor)});
  }
}

std::span<const FlatImage::Piece> FlatImage::pieces(int64_t begin, int64_t end)
    const {
  const auto first = std::partition_point(
      pieces_.begin(), pieces_.end(), [&](const Piece& piece) {
        return piece.end <= begin;
      });
  const auto last =
      std::partition_point(first, pieces_.end(), [&](const Piece& piece) {
        return piece.begin < end;
      });
  return {first, last};
}

bool FlatImage::covers(int64_t begin, int64_t end) const {
  int64_t at = begin;
  for (const Piece& piece : pieces(begin, end)) {
    if (piece.begin > at) {
      return false;
    }
    at = piece.end;
  }
  return at >= end;
}

void FlatImage::read(int64_t begin, int64_t end, float* out) const {
  int64_t at = begin;
  const auto zeros_until = [&](int64_t to) {
    std::fill_n(out + (at - begin), to - at, 0.0f);
    at = to;
  };
  for (const Piece& piece : pieces(begin, end)) {
    if (piece.begin > at) {
      zeros_until(piece.begin);
    }
    const int64_t to = std::min(end, piece.end);
    read_floats(
        piece.tensor, at - piece.begin, to - piece.begin, out + (at - begin));
    at = to;
  }
  zeros_until(end);
}

} // namespace deepspeed::checkpoint
