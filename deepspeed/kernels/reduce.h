// Element-wise reductions of several arrays, one from each rank.
#pragma once

#include <cstdint>
#include <span>

namespace deepspeed::kernels {

// out[i] = ((inputs[0][i] + inputs[1][i]) + inputs[2][i]) + ..., for i < n: in
// the order of the arrays, whatever the instruction set. 16-bit floats are
// summed in float and rounded once, to nearest even. T: float, double, int64_t
// and int32_t (they wrap), base::BFloat16, base::Float16. At least one array;
// `out` may be one of them.
template <typename T>
void reduce_sum(std::span<const T* const> inputs, int64_t n, T* out);

// The largest of the values; NaN when one of them is.
template <typename T>
void reduce_max(std::span<const T* const> inputs, int64_t n, T* out);

} // namespace deepspeed::kernels
