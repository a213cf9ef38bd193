// Flat elements that lie in several tensors, read as floats.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "deepspeed/formats/tensor.h"

namespace deepspeed::checkpoint {

// Row-major elements [begin, end) of a floating tensor as floats. Tensors that
// are not contiguous are gathered whole. std::out_of_range for a range that is
// not in the tensor, std::invalid_argument for integers.
void read_floats(
    const formats::Tensor& tensor,
    int64_t begin,
    int64_t end,
    float* out);

bool is_floating(formats::DType dtype);

// Pieces of a flat buffer, which need not touch.
class FlatImage {
 public:
  // Elements [0, numel) of `tensor` are [begin, begin + numel) of the buffer.
  // Pieces are added by rising `begin` and do not overlap.
  void add(int64_t begin, int64_t numel, formats::Tensor tensor);

  // Whether every element of the range is in a piece.
  bool covers(int64_t begin, int64_t end) const;
  // Zeros for elements in no piece.
  void read(int64_t begin, int64_t end, float* out) const;

 private:
  struct Piece {
    int64_t begin = 0;
    int64_t end = 0;
    formats::Tensor tensor;
  };
  // The pieces that have elements of the range.
  std::span<const Piece> pieces(int64_t begin, int64_t end) const;

  std::vector<Piece> pieces_;
};

} // namespace deepspeed::checkpoint
