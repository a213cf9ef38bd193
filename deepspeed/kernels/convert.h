// Conversions and scaled sums of arrays. bfloat16 and fp16 are rounded to
// nearest even; fp16 overflows to infinity.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

void to_bfloat16(const float* x, int64_t n, base::BFloat16* y);
void to_float(const base::BFloat16* x, int64_t n, float* y);
void to_float16(const float* x, int64_t n, base::Float16* y);
void to_float(const base::Float16* x, int64_t n, float* y);

// y += scale * x, in float. y may be x when T is float.
template <typename T>
void scale_add(float scale, const T* x, int64_t n, float* y);

// y = scale * x, in float.
template <typename T>
void scale_copy(float scale, const T* x, int64_t n, T* y);

// x *= scale.
void scale(float scale, int64_t n, float* x);

} // namespace deepspeed::kernels
