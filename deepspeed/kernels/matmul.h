// The product of two matrices, in fp32 whatever the type of its operands.
//
// Blocks of the left operand are packed for the L2 cache, panels of the right
// one for the L1 cache, and a tile of the result stays in registers (K. Goto
// and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication,
// 2008). Packing widens bfloat16 and fp16 on the way.
#pragma once

#include <cstdint>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"

namespace deepspeed::kernels {

// Element (i, j) stands at data[i * row + j * column]; one of the two strides
// is 1.
template <typename T>
struct MatmulOperand {
  const T* data = nullptr;
  int64_t row = 0;
  int64_t column = 1;
};

// Memory that a product asks for while it is made, because what comes after it
// reads that: `count` ranges of `bytes` bytes.
struct MatmulAhead {
  static constexpr int64_t kMaxRanges = 3;
  const void* ranges[kMaxRanges] = {};
  int64_t count = 0;
  int64_t bytes = 0;
};

// out = scale * left right + bias, or out += scale * left right, or one of the
// two ways through GELU (gelu.h):
//   u = scale * left right + bias, out = gelu(u), gelu_derivative = gelu'(u)
//   out = gate * (scale * left right)
// On instruction sets that multiply bfloat16 (isa.h), denormal elements count
// as zero. T, Out: float, float; or base::BFloat16 or base::Float16 with itself
// or with float.
template <typename T, typename Out>
struct Matmul {
  int64_t rows = 0; // of `out`
  int64_t columns = 0; // of `out`
  int64_t depth = 0;
  MatmulOperand<T> left; // [rows, depth]
  MatmulOperand<T> right; // [depth, columns]
  float scale = 1.0f;
  const T* bias = nullptr; // [columns], or null
  bool accumulate = false; // add to what `out` holds
  Out* out = nullptr; // [rows, columns]
  int64_t out_row = 0; // elements from one row of `out` to the next
  // Null, or laid out as `out`; not both, and neither with `accumulate`.
  Out* gelu_derivative = nullptr; // written
  const Out* gate = nullptr; // read
  MatmulAhead ahead; // of the last block of a call
  // Nobody reads `out` soon: whole tiles of fp32 bypass the caches.
  bool streams = false;
};

// The parts that a product is made in, each of block_rows x block_columns.
struct MatmulBlocks {
  int64_t block_rows = 0;
  int64_t block_columns = 0;
  int64_t across = 0; // blocks side by side
  int64_t count = 0;
};

// At least one block for each thread where there is enough to do.
MatmulBlocks matmul_blocks(int64_t rows, int64_t columns, int64_t threads);

// Makes the blocks [begin, end), one after the other: several are faster in one
// call than in several. An element is summed over the depth in the
// same order whatever the blocks are; NaN and infinity pass through.
template <typename T, typename Out>
void matmul(
    const Matmul<T, Out>& args,
    const MatmulBlocks& blocks,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::kernels
