// Sums over the rows of a matrix: the gradient of a bias.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

template <typename T>
struct ColumnSum {
  int64_t rows = 0;
  int64_t stride = 0; // elements from one row to the next
  const T* x = nullptr;
  bool accumulate = false; // add to what `out` holds
  float* out = nullptr; // [columns]
};

// out[c] = sum over rows r of x[r * stride + c], for c in [begin, end). The
// order of the additions depends on `rows` alone. T: float,
// base::BFloat16, base::Float16.
template <typename T>
void column_sum(const ColumnSum<T>& args, int64_t begin, int64_t end);

} // namespace deepspeed::kernels
