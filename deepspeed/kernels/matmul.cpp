// Matrix products: packed blocks, and a tile of the result in registers.
#include "deepspeed/kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include <hwy/cache_control.h>

#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/matmul.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/matmul_amx_inl.h"
#include "deepspeed/kernels/matmul_finish_inl.h"
#include "deepspeed/kernels/matmul_left_inl.h"

namespace deepspeed::kernels {
#ifndef DEEPSPEED_KERNELS_MATMUL_SIZES_
#define DEEPSPEED_KERNELS_MATMUL_SIZES_
// Units of the depth that are summed at a time: part of the result, the same
// everywhere.
constexpr int64_t kUnits = 384;
// Of the packed rows of the left operand: half of a small L2 cache.
constexpr int64_t kLeftUnits = 60 * 1024;
// Of a block: what its packed columns and its sums take stays in the caches.
constexpr int64_t kMaxRows = 960;
constexpr int64_t kMaxColumns = 256;
// Blocks of no more rows are cut into columns.
constexpr int64_t kFewRows = 48;
// Rows that lie multiples of this apart are packed.
constexpr int64_t kAliasBytes = 2048;
// Of the sides of blocks: tiles fit into these without a rest or end with a
// smaller one.
constexpr int64_t kRowMultiple = 4;
constexpr int64_t kColumnMultiple = 32;
#endif
} // namespace deepspeed::kernels

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16") // see matmul_tile_inl.h
#endif
namespace deepspeed::kernels::HWY_NAMESPACE {

// Asks for the memory of a tile of the result, to write to: a store would wait
// for it.
template <typename T, typename Out>
HWY_INLINE void claim(const Matmul<T, Out>& args, Place tile) {
  constexpr int64_t kLine = 64 / sizeof(Out);
  for (int64_t i = 0; i < tile.rows; ++i) {
    const Out* row = args.out + (tile.row + i) * args.out_row + tile.column;
    for (int64_t j = 0; j < tile.columns; j += kLine) {
      __builtin_prefetch(row + j, 1, 3);
    }
  }
}

// Shares out what is asked for over the tiles of a block: one of its ranges
// after the other gets a tile.
class AheadOfTiles {
 public:
  AheadOfTiles(const MatmulAhead& ahead, int64_t first_tile, int64_t tiles)
      : ahead_(ahead),
        bytes_(ahead.bytes / HWY_MAX(tiles / ahead.count, 1) + 1),
        begin_(first_tile / ahead.count * bytes_),
        range_(first_tile % ahead.count) {}

  HWY_INLINE Ahead of_next_tile(int64_t units) {
    const Ahead now = {
        static_cast<const char*>(ahead_.ranges[range_]) + begin_, step(units)};
    if (++range_ == ahead_.count) {
      range_ = 0;
      begin_ += bytes_;
    }
    return now;
  }

 private:
  // Divided once: all tiles but those of the last part of the depth are alike.
  HWY_INLINE int64_t step(int64_t units) {
    if (units != units_) {
      units_ = units;
      step_ = bytes_ / (2 * units) + 1;
    }
    return step_;
  }

  MatmulAhead ahead_;
  int64_t bytes_; // for each tile
  int64_t begin_; // in the range
  int64_t range_;
  int64_t units_ = 0;
  int64_t step_ = 1;
};

// Rows of the left operand, for tiles: in place, but for the last ones that do
// not fill a tile, or all packed.
template <typename Unit>
class LeftRows {
 public:
  using T = typename Unit::T;

  LeftRows(const Lines<T>& rows, int64_t units, float* packed)
      : in_place_(whole_rows(rows)),
        place_{
            reinterpret_cast<const float*>(rows.data),
            rows.line / Unit::kElements,
            1},
        packed_(
            {rows.data + in_place_ * rows.line,
             rows.count - in_place_,
             rows.line,
             rows.depth,
             rows.along},
            units,
            packed) {}

  // From row i on, a multiple of Unit::kRows.
  HWY_INLINE Left panel(int64_t i) const {
    return i < in_place_
        ? Left{place_.data + i * place_.line, place_.line, place_.unit}
        : packed_.panel(i - in_place_);
  }

 private:
  // How many can be read in place: those of whole tiles, if their elements are
  // units already and do not all fall into the same few sets of the cache.
  static HWY_INLINE int64_t whole_rows(const Lines<T>& rows) {
    constexpr int64_t kElements = Unit::kElements;
    const int64_t bytes = rows.line * int64_t{sizeof(T)};
    const bool fits = kElements * sizeof(T) == sizeof(float) &&
        rows.along == 1 && rows.line % kElements == 0 &&
        rows.depth % (kElements * Unit::kDepth) == 0 &&
        reinterpret_cast<uintptr_t>(rows.data) % sizeof(float) == 0 &&
        bytes % kAliasBytes != 0;
    return fits ? rows.count / Unit::kRows * Unit::kRows : 0;
  }

  int64_t in_place_;
  Left place_;
  PackedLeft<Unit> packed_;
};

// A tile of the result, or its sum over a part of the depth.
template <typename Unit, typename T, typename Out>
HWY_INLINE void make_tile(
    Unit,
    const Matmul<T, Out>& args,
    const Panels& panels,
    const Ahead& ahead,
    Finish finish,
    Place at,
    Sums sums) {
  constexpr int64_t kRows = Unit::kRows;
  if (finish == Finish::in_buffer || at.rows < kRows ||
      at.columns < kTileColumns) {
    alignas(64) float tile[kRows * kTileColumns];
    const Floats<false> to{tile, kTileColumns};
    constexpr int64_t kHalf = (kVectors + 1) / 2;
    if (at.columns > kHalf * kLanes) {
      multiply_rows<Unit, kVectors>(at.rows, panels, args.scale, ahead, to);
    } else {
      multiply_rows<Unit, kHalf>(at.rows, panels, args.scale, ahead, to);
    }
    finish_tile(args, tile, at, sums);
  } else if (finish == Finish::result) {
    const int64_t first = at.row * args.out_row + at.column;
    multiply_tile<Unit, kRows>(
        panels,
        args.scale,
        ahead,
        Result<T, Out>{
            args.gate == nullptr ? nullptr : args.gate + first,
            args.bias == nullptr ? nullptr : args.bias + at.column,
            args.accumulate,
            args.out + first,
            args.out_row});
  } else if (finish == Finish::past_caches) {
    multiply_tile<Unit, kRows>(
        panels, args.scale, ahead, Floats<true>{sums.data, sums.row});
  } else {
    multiply_tile<Unit, kRows>(
        panels, args.scale, ahead, Floats<false>{sums.data, sums.row});
  }
}

// The tiles of one block of rows.
template <typename Unit, typename T, typename Out>
HWY_INLINE void multiply_tiles(
    const Matmul<T, Out>& args,
    const LeftRows<Unit>& left,
    const float* right,
    int64_t units,
    Place place,
    Sums sums,
    AheadOfTiles& ahead) {
  const Finish finish = finish_of(args, sums);
  // A panel of rows stays in the L1 cache, those of columns stream past it.
  for (int64_t i = 0; i < place.rows; i += Unit::kRows) {
    const int64_t rows = HWY_MIN(place.rows - i, Unit::kRows);
    for (int64_t j = 0; j < place.columns; j += kTileColumns) {
      const int64_t columns = HWY_MIN(place.columns - j, kTileColumns);
      const Panels panels = {
          left.panel(i),
          right + j / kTileColumns * panel_pitch<kTileColumns>(units),
          units};
      const Ahead now = ahead.of_next_tile(units);
      Sums here = sums;
      here.data += i * sums.row + j;
      const Place at = {place.row + i, place.column + j, rows, columns};
      if (finish != Finish::past_caches) {
        claim(args, at);
      }
      make_tile(Unit(), args, panels, now, finish, at, here);
    }
  }
}

template <typename T>
HWY_INLINE MatmulOperand<T> part_of(
    MatmulOperand<T> x,
    int64_t row,
    int64_t column) {
  return {x.data + row * x.row + column * x.column, x.row, x.column};
}

// What is asked for during the tiles of one packed part of the right operand at
// `k` of `block`: what is read after the block, if that is said, else the part
// that is packed next, where its rows follow each other in memory.
template <typename Unit, typename T, typename Out>
HWY_INLINE AheadOfTiles ahead_of(
    const Matmul<T, Out>& args,
    Place block,
    int64_t next_column, // of the next block; args.columns: there is none
    int64_t k,
    const float* packed) {
  constexpr int64_t kElements = kUnits * Unit::kElements;
  const int64_t tiles = round_up(block.rows, Unit::kRows) / Unit::kRows *
      (round_up(block.columns, kTileColumns) / kTileColumns);
  if (args.ahead.count > 0 && next_column >= args.columns) {
    const int64_t parts = round_up(args.depth, kElements) / kElements;
    return {args.ahead, k / kElements * tiles, tiles * parts};
  }
  const bool last = k + kElements >= args.depth;
  k = last ? 0 : k + kElements;
  const int64_t column = last ? next_column : block.column;
  const int64_t depth = HWY_MIN(args.depth - k, kElements);
  const int64_t columns = HWY_MIN(args.columns - column, block.columns);
  const bool dense = args.right.column == 1 ? args.right.row == columns
                                            : args.right.column == depth;
  if (columns <= 0 || !dense) {
    return {{{packed}, 1, 0}, 0, tiles};
  }
  const void* next = part_of(args.right, k, column).data;
  return {{{next}, 1, depth * columns * int64_t{sizeof(T)}}, 0, tiles};
}

template <typename Unit, typename T, typename Out>
HWY_NOINLINE void multiply_block(
    const Matmul<T, Out>& args,
    Place block,
    int64_t next_column) {
  constexpr bool kInPlace = std::is_same_v<Out, float>;
  constexpr int64_t kElements = kUnits * Unit::kElements;
  const int64_t units = HWY_MIN(padded_units<Unit>(args.depth), kUnits);
  const int64_t padded_columns = round_up(block.columns, kTileColumns);
  const int64_t left_rows = HWY_MIN(
      round_up(block.rows, Unit::kRows),
      kLeftUnits / HWY_MAX(units, 1) / Unit::kRows * Unit::kRows);
  const bool gathers = !kInPlace && args.depth > kElements;
  const int64_t left_size = PackedLeft<Unit>::size(left_rows, units);
  const int64_t right_size =
      padded_columns / kTileColumns * panel_pitch<kTileColumns>(units);
  float* left = scratch_floats(
      left_size + right_size + (gathers ? block.rows * padded_columns : 0));
  float* right = left + left_size;
  Sums sums = {right + right_size, padded_columns, true, false};
  if constexpr (kInPlace) {
    sums.data = args.out + block.row * args.out_row + block.column;
    sums.row = args.out_row;
  }
  for (int64_t k = 0; !sums.last; k += kElements) {
    const int64_t depth = HWY_MIN(args.depth - k, kElements);
    const int64_t part = padded_units<Unit>(depth);
    sums.first = k == 0;
    sums.last = k + kElements >= args.depth;
    const MatmulOperand<T> columns = part_of(args.right, k, block.column);
    pack<Unit, kTileColumns>(
        Lines<T>{
            columns.data, block.columns, columns.column, depth, columns.row},
        right);
    AheadOfTiles ahead = ahead_of<Unit>(args, block, next_column, k, right);
    for (int64_t i = 0; i < block.rows; i += left_rows) {
      const int64_t rows = HWY_MIN(block.rows - i, left_rows);
      const int64_t row = block.row + i;
      const MatmulOperand<T> lines = part_of(args.left, row, k);
      const LeftRows<Unit> tiles(
          Lines<T>{lines.data, rows, lines.row, depth, lines.column},
          part,
          left);
      Sums here = sums;
      here.data += i * sums.row;
      multiply_tiles<Unit>(
          args,
          tiles,
          right,
          part,
          {row, block.column, rows, block.columns},
          here,
          ahead);
    }
  }
  hwy::FlushStream();
}

template <typename Unit, typename T, typename Out>
HWY_INLINE void multiply_blocks(
    const Matmul<T, Out>& args,
    const MatmulBlocks& blocks,
    int64_t begin,
    int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index / blocks.across * blocks.block_rows;
    const int64_t column = index % blocks.across * blocks.block_columns;
    const int64_t next = (index + 1) % blocks.across * blocks.block_columns;
    multiply_block<Unit>(
        args,
        {row,
         column,
         HWY_MIN(args.rows - row, blocks.block_rows),
         HWY_MIN(args.columns - column, blocks.block_columns)},
        index + 1 < end ? next : args.columns);
  }
}

#define DS_MATMUL_KERNEL(name, Unit, T, Out)           \
  void name(                                           \
      const Matmul<T, Out>& args,                      \
      const MatmulBlocks& blocks,                      \
      int64_t begin,                                   \
      int64_t end) {                                   \
    [[maybe_unused]] const typename Unit::Scope scope; \
    multiply_blocks<Unit>(args, blocks, begin, end);   \
  }
DS_MATMUL_KERNEL(matmul_float, Widened<float>, float, float)
DS_MATMUL_KERNEL(matmul_bfloat16, Widened<BFloat16>, BFloat16, BFloat16)
DS_MATMUL_KERNEL(matmul_bfloat16_float, Widened<BFloat16>, BFloat16, float)
DS_MATMUL_KERNEL(matmul_float16, Widened<Float16>, Float16, Float16)
DS_MATMUL_KERNEL(matmul_float16_float, Widened<Float16>, Float16, float)
#if HWY_TARGET == HWY_AVX3
DS_MATMUL_KERNEL(matmul_pairs, Pairs, BFloat16, BFloat16)
DS_MATMUL_KERNEL(matmul_pairs_float, Pairs, BFloat16, float)
DS_MATMUL_KERNEL(matmul_amx, AmxPairs, BFloat16, BFloat16)
DS_MATMUL_KERNEL(matmul_amx_float, AmxPairs, BFloat16, float)
#endif
#undef DS_MATMUL_KERNEL

} // namespace deepspeed::kernels::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif
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
  // What is left to share out: whole rows of the right operand are read faster.
  while (down * across % threads != 0 && down * across < 4 * threads) {
    const int64_t block_rows = part_of(rows, down, kRowMultiple);
    const int64_t block_columns = part_of(columns, across, kColumnMultiple);
    if (block_rows <= kFewRows && block_columns <= kColumnMultiple) {
      break;
    }
    if (block_rows > kFewRows) {
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
#if defined(__x86_64__)
#define DS_MATMUL_ENTRY_PAIRS(name, pairs, amx, Out) \
  HWY_EXPORT(name);                                  \
  template <>                                        \
  void matmul(                                       \
      const Matmul<base::BFloat16, Out>& args,       \
      const MatmulBlocks& blocks,                    \
      int64_t begin,                                 \
      int64_t end) {                                 \
    if (has_tiles()) {                               \
      N_AVX3::amx(args, blocks, begin, end);         \
    } else if (multiplies_bfloat16()) {              \
      N_AVX3::pairs(args, blocks, begin, end);       \
    } else {                                         \
      DS_DISPATCH(name)(args, blocks, begin, end);   \
    }                                                \
  }
#else
#define DS_MATMUL_ENTRY_PAIRS(name, pairs, amx, Out) \
  DS_MATMUL_ENTRY(name, base::BFloat16, Out)
#endif
DS_MATMUL_ENTRY(matmul_float, float, float)
DS_MATMUL_ENTRY_PAIRS(matmul_bfloat16, matmul_pairs, matmul_amx, base::BFloat16)
DS_MATMUL_ENTRY_PAIRS(
    matmul_bfloat16_float,
    matmul_pairs_float,
    matmul_amx_float,
    float)
DS_MATMUL_ENTRY(matmul_float16, base::Float16, base::Float16)
DS_MATMUL_ENTRY(matmul_float16_float, base::Float16, float)
#undef DS_MATMUL_ENTRY
#undef DS_MATMUL_ENTRY_PAIRS

} // namespace deepspeed::kernels
#endif // HWY_ONCE
