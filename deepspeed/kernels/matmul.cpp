// Matrix products: packed blocks, and a tile of the result in registers.
#include "deepspeed/kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/matmul.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/float16_inl.h"

namespace deepspeed::kernels {
#ifndef DEEPSPEED_KERNELS_MATMUL_SIZES_
#define DEEPSPEED_KERNELS_MATMUL_SIZES_
// Depth that is summed at a time: part of the result, the same everywhere.
constexpr int64_t kDepth = 256;
// Of the packed rows of the left operand: half of a small L2 cache.
constexpr int64_t kLeftFloats = 60 * 1024;
// Of a block: what its packed columns and its sums take stays in the caches.
constexpr int64_t kMaxRows = 960;
constexpr int64_t kMaxColumns = 512;
// Tiles of AVX-512 fit into these multiples without a rest; others are padded.
constexpr int64_t kRowMultiple = 12;
constexpr int64_t kColumnMultiple = 32;
#endif
} // namespace deepspeed::kernels

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// A tile has kGroups x kGroup rows and kVectors vectors: as many as there are
// registers for, with some left for the operands.
constexpr int64_t kGroup = 4;
constexpr int64_t kGroups = HWY_TARGET == HWY_AVX3 ? 3
    : HWY_TARGET == HWY_NEON                       ? 2
                                                   : 1;
// (One lane: a group of columns must fill whole tiles.)
constexpr int64_t kVectors = HWY_TARGET == HWY_AVX2 ? 3 : kLanes == 1 ? 4 : 2;
constexpr int64_t kTileRows = kGroups * kGroup;
constexpr int64_t kTileColumns = kVectors * kLanes;

HWY_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <typename T>
HWY_INLINE float widened(T x) {
  return static_cast<float>(x);
}

// Four rows (or columns) side by side: to[k * kGroup + r] is row r at depth k,
// for rows whose elements follow each other along the depth.
template <typename T>
HWY_INLINE void interleave_group(
    const T* from,
    int64_t stride,
    int64_t depth,
    float* to) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    hn::StoreInterleaved4(
        load(from + k, Full()),
        load(from + stride + k, Full()),
        load(from + 2 * stride + k, Full()),
        load(from + 3 * stride + k, Full()),
        D(),
        to + k * kGroup);
  }
  for (; k < depth; ++k) {
    for (int64_t r = 0; r < kGroup; ++r) {
      to[k * kGroup + r] = widened(from[r * stride + k]);
    }
  }
}

// The same for `count` (0 to kGroup) rows with any strides; the missing rows
// are zero.
template <typename T>
HWY_INLINE void pack_group(
    const T* from,
    int64_t stride,
    int64_t depth_stride,
    int64_t count,
    int64_t depth,
    float* to) {
  if (count == kGroup && depth_stride == 1) {
    interleave_group(from, stride, depth, to);
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t r = 0; r < kGroup; ++r) {
      to[k * kGroup + r] =
          r < count ? widened(from[r * stride + k * depth_stride]) : 0.0f;
    }
  }
}

// Panels of kTileRows rows, each of kGroups groups of depth x kGroup.
template <typename T>
HWY_INLINE void pack_left(
    MatmulOperand<T> from,
    int64_t rows,
    int64_t depth,
    float* to) {
  int64_t row = 0;
  if (from.row == 1) {
    // Depth by depth: its rows may lie pages apart.
    row = rows / kGroup * kGroup;
    for (int64_t k = 0; k < depth; ++k) {
      const T* x = from.data + k * from.column;
      for (int64_t i = 0; i < row; i += kGroup) {
        float* group = to + i * depth + k * kGroup;
        for (int64_t r = 0; r < kGroup; ++r) {
          group[r] = widened(x[i + r]);
        }
      }
    }
  }
  for (; row < round_up(rows, kTileRows); row += kGroup) {
    pack_group(
        from.data + row * from.row,
        from.row,
        from.column,
        std::clamp<int64_t>(rows - row, 0, kGroup),
        depth,
        to + row * depth);
  }
}

// Panels of kTileColumns columns: to[k * kTileColumns + j] is column j at depth
// k, and missing columns are zero. `group` has room for depth x kGroup floats.
template <typename T>
HWY_INLINE void pack_right(
    MatmulOperand<T> from,
    int64_t columns,
    int64_t depth,
    float* group,
    float* to) {
  const int64_t padded = round_up(columns, kTileColumns);
  if (from.column == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      const T* row = from.data + k * from.row;
      for (int64_t j = 0; j < padded; j += kTileColumns) {
        float* out = to + j * depth + k * kTileColumns;
        const int64_t count = HWY_MIN(columns - j, kTileColumns);
        if (count < kTileColumns) {
          std::fill(out, out + kTileColumns, 0.0f);
        }
        for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
          store(load(row + j + i, part), out + i, part);
        });
      }
    }
    return;
  }
  // Columns along the depth are packed as rows of the left operand, then set
  // side by side.
  for (int64_t j = 0; j < padded; j += kGroup) {
    pack_group(
        from.data + j * from.column,
        from.column,
        from.row,
        std::clamp<int64_t>(columns - j, 0, kGroup),
        depth,
        group);
    float* out =
        to + j / kTileColumns * kTileColumns * depth + j % kTileColumns;
    for (int64_t k = 0; k < depth; ++k) {
      std::memcpy(
          out + k * kTileColumns, group + k * kGroup, kGroup * sizeof(float));
    }
  }
}

// tile = left panel x right panel
HWY_INLINE void multiply_tile(
    const float* HWY_RESTRICT left,
    const float* HWY_RESTRICT right,
    int64_t depth,
    float* HWY_RESTRICT tile) {
  V sum[kTileRows][kVectors];
#pragma GCC unroll 12
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      sum[i][j] = zero();
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    V columns[kVectors];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      columns[j] = load(right + k * kTileColumns + j * kLanes, Full());
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < kTileRows; ++i) {
      const int64_t group = i / kGroup;
      const V row = set(left[(group * depth + k) * kGroup + i % kGroup]);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kVectors; ++j) {
        sum[i][j] = hn::MulAdd(row, columns[j], sum[i][j]);
      }
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      store(sum[i][j], tile + i * kTileColumns + j * kLanes, Full());
    }
  }
}

// A part of the result.
struct Place {
  int64_t row;
  int64_t column;
  int64_t rows;
  int64_t columns;
};

// Where the sums over parts of the depth gather: in the result where that is
// fp32, else in a buffer until the last part.
struct Sums {
  float* data;
  int64_t row;
  bool first; // nothing has been summed yet
  bool last;
};

template <typename T, typename Out>
HWY_INLINE void finish_tile(
    const Matmul<T, Out>& args,
    const float* tile,
    Place place,
    Sums sums) {
  constexpr bool kInPlace = std::is_same_v<Out, float>;
  const bool add = args.accumulate && (kInPlace ? sums.first : sums.last);
  const bool add_bias = args.bias != nullptr && sums.first;
  const V scale = set(args.scale);
  for (int64_t i = 0; i < place.rows; ++i) {
    Out* out = args.out + (place.row + i) * args.out_row + place.column;
    float* partial = sums.data + i * sums.row;
    for_vectors(place.columns, [&](int64_t j, auto part) HWY_ATTR {
      V x = hn::Mul(scale, load(tile + i * kTileColumns + j, part));
      if (add_bias) {
        x = hn::Add(x, load(args.bias + place.column + j, part));
      }
      if (!sums.first) {
        x = hn::Add(load(partial + j, part), x);
      }
      if (add) {
        x = hn::Add(load(out + j, part), x);
      }
      if (kInPlace || sums.last) {
        store(x, out + j, part);
      } else {
        store(x, partial + j, part);
      }
    });
  }
}

// The tiles of one packed block of rows.
template <typename T, typename Out>
HWY_INLINE void multiply_tiles(
    const Matmul<T, Out>& args,
    const float* left,
    const float* right,
    int64_t depth,
    Place place,
    Sums sums) {
  alignas(64) float tile[kTileRows * kTileColumns];
  // A panel of rows stays in the L1 cache, those of columns stream past it.
  for (int64_t i = 0; i < place.rows; i += kTileRows) {
    for (int64_t j = 0; j < place.columns; j += kTileColumns) {
      multiply_tile(left + i * depth, right + j * depth, depth, tile);
      const Place part = {
          place.row + i,
          place.column + j,
          HWY_MIN(place.rows - i, kTileRows),
          HWY_MIN(place.columns - j, kTileColumns)};
      Sums here = sums;
      here.data += i * sums.row + j;
      finish_tile(args, tile, part, here);
    }
  }
}

template <typename T, typename Out>
HWY_NOINLINE void multiply_block(const Matmul<T, Out>& args, Place block) {
  constexpr bool kInPlace = std::is_same_v<Out, float>;
  const int64_t depth = HWY_MIN(args.depth, kDepth);
  const int64_t padded_columns = round_up(block.columns, kTileColumns);
  const int64_t left_rows =
      kLeftFloats / HWY_MAX(depth, 1) / kTileRows * kTileRows;
  const bool gathers = !kInPlace && args.depth > kDepth;
  float* left = scratch_floats(
      depth * (left_rows + kGroup + padded_columns) +
      (gathers ? block.rows * padded_columns : 0));
  float* group = left + depth * left_rows;
  float* right = group + depth * kGroup;
  Sums sums = {right + depth * padded_columns, padded_columns, true, false};
  if constexpr (kInPlace) {
    sums.data = args.out + block.row * args.out_row + block.column;
    sums.row = args.out_row;
  }
  for (int64_t k = 0; !sums.last; k += kDepth) {
    const int64_t part = HWY_MIN(args.depth - k, kDepth);
    sums.first = k == 0;
    sums.last = k + kDepth >= args.depth;
    pack_right<T>(
        {args.right.data + k * args.right.row +
             block.column * args.right.column,
         args.right.row,
         args.right.column},
        block.columns,
        part,
        group,
        right);
    for (int64_t i = 0; i < block.rows; i += left_rows) {
      const int64_t rows = HWY_MIN(block.rows - i, left_rows);
      const int64_t row = block.row + i;
      pack_left<T>(
          {args.left.data + row * args.left.row + k * args.left.column,
           args.left.row,
           args.left.column},
          rows,
          part,
          left);
      Sums here = sums;
      here.data += i * sums.row;
      multiply_tiles(
          args,
          left,
          right,
          part,
          {row, block.column, rows, block.columns},
          here);
    }
  }
}

template <typename T, typename Out>
HWY_INLINE void multiply_blocks(
    const Matmul<T, Out>& args,
    const MatmulBlocks& blocks,
    int64_t begin,
    int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index / blocks.across * blocks.block_rows;
    const int64_t column = index % blocks.across * blocks.block_columns;
    multiply_block(
        args,
        {row,
         column,
         HWY_MIN(args.rows - row, blocks.block_rows),
         HWY_MIN(args.columns - column, blocks.block_columns)});
  }
}

#define DS_MATMUL_KERNEL(name, T, Out)         \
  void name(                                   \
      const Matmul<T, Out>& args,              \
      const MatmulBlocks& blocks,              \
      int64_t begin,                           \
      int64_t end) {                           \
    multiply_blocks(args, blocks, begin, end); \
  }
DS_MATMUL_KERNEL(matmul_float, float, float)
DS_MATMUL_KERNEL(matmul_bfloat16, BFloat16, BFloat16)
DS_MATMUL_KERNEL(matmul_bfloat16_float, BFloat16, float)
DS_MATMUL_KERNEL(matmul_float16, Float16, Float16)
DS_MATMUL_KERNEL(matmul_float16_float, Float16, float)
#undef DS_MATMUL_KERNEL

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
namespace {

int64_t ceil_div(int64_t n, int64_t divisor) {
  return (n + divisor - 1) / divisor;
}

// The smallest multiple that makes `parts` parts of n.
int64_t part_of(int64_t n, int64_t parts, int64_t multiple) {
  return std::max<int64_t>(ceil_div(ceil_div(n, parts), multiple), 1) *
      multiple;
}

} // namespace

MatmulBlocks matmul_blocks(int64_t rows, int64_t columns, int64_t threads) {
  int64_t down = std::max<int64_t>(ceil_div(rows, kMaxRows), 1);
  int64_t across = std::max<int64_t>(ceil_div(columns, kMaxColumns), 1);
  // What is left to share out: the longer side gives more.
  while (down * across % threads != 0 && down * across < 4 * threads) {
    const int64_t block_rows = part_of(rows, down, kRowMultiple);
    const int64_t block_columns = part_of(columns, across, kColumnMultiple);
    if (block_rows <= kRowMultiple && block_columns <= kColumnMultiple) {
      break;
    }
    if (block_rows >= block_columns) {
      ++down;
    } else {
      ++across;
    }
  }
  MatmulBlocks blocks;
  blocks.block_rows = part_of(rows, down, kRowMultiple);
  blocks.block_columns = part_of(columns, across, kColumnMultiple);
  blocks.across = ceil_div(columns, blocks.block_columns);
  blocks.count = blocks.across * ceil_div(rows, blocks.block_rows);
  return blocks;
}

#define DS_MATMUL_ENTRY(name, T, Out)            \
  HWY_EXPORT(name);                              \
  template <>                                    \
  void matmul(                                   \
      const Matmul<T, Out>& args,                \
      const MatmulBlocks& blocks,                \
      int64_t begin,                             \
      int64_t end) {                             \
    DS_DISPATCH(name)(args, blocks, begin, end); \
  }
DS_MATMUL_ENTRY(matmul_float, float, float)
DS_MATMUL_ENTRY(matmul_bfloat16, base::BFloat16, base::BFloat16)
DS_MATMUL_ENTRY(matmul_bfloat16_float, base::BFloat16, float)
DS_MATMUL_ENTRY(matmul_float16, base::Float16, base::Float16)
DS_MATMUL_ENTRY(matmul_float16_float, base::Float16, float)
#undef DS_MATMUL_ENTRY

} // namespace deepspeed::kernels
#endif // HWY_ONCE
