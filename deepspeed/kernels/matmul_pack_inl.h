// Packs the operands of a matrix product into panels, see matmul_tile_inl.h;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>

#include "deepspeed/kernels/matmul.h"
#include "deepspeed/kernels/matmul_columns_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// `count` (0 to kGroup) rows side by side: to[k * kGroup + r] is unit k of row
// r; missing rows are zero. Any strides.
template <typename Unit, typename T>
HWY_INLINE void pack_rest(
    const T* from,
    int64_t stride,
    int64_t depth_stride,
    int64_t count,
    int64_t first, // unit
    int64_t depth, // elements
    float* to) {
  for (int64_t k = first; k * Unit::kElements < depth; ++k) {
    const bool whole = (k + 1) * Unit::kElements <= depth;
    for (int64_t r = 0; r < kGroup; ++r) {
      const T* p = from + r * stride + k * Unit::kElements * depth_stride;
      to[k * kGroup + r] =
          r >= count ? 0.0f : Unit::one(p, whole ? p + depth_stride : nullptr);
    }
  }
}

// The same for rows whose elements follow each other along the depth.
template <typename Unit, typename T>
HWY_INLINE void pack_group(
    const T* from,
    int64_t stride,
    int64_t count,
    int64_t depth, // elements
    float* to) {
  constexpr int64_t kStep = kLanes * Unit::kElements;
  int64_t k = 0;
  if (count == kGroup) {
    for (; k + kStep <= depth; k += kStep) {
      hn::StoreInterleaved4(
          Unit::along(from + k),
          Unit::along(from + stride + k),
          Unit::along(from + 2 * stride + k),
          Unit::along(from + 3 * stride + k),
          D(),
          to + k / Unit::kElements * kGroup);
    }
  }
  pack_rest<Unit>(from, stride, 1, count, k / Unit::kElements, depth, to);
}

constexpr int64_t kAhead = 3; // groups
constexpr int64_t kAheadRows = 32;

// Asks for rows before they are needed, one after the other: read side by side
// they come from memory at half the speed.
template <typename T>
HWY_INLINE void fetch_rows(
    const T* from,
    int64_t rows,
    int64_t stride,
    int64_t count) {
  for (int64_t row = 0; row < rows; ++row) {
    const char* p = reinterpret_cast<const char*>(from + row * stride);
    for (int64_t i = 0; i < count * static_cast<int64_t>(sizeof(T)); i += 64) {
      __builtin_prefetch(p + i, 0, 2); // into the L2 cache
    }
  }
}

// Panels of kTileRows rows, each of kGroups groups of units x kGroup.
template <typename Unit>
HWY_INLINE void pack_left(
    MatmulOperand<typename Unit::T> from,
    int64_t rows,
    int64_t depth, // elements
    float* to) {
  const int64_t units = round_up(depth, Unit::kElements) / Unit::kElements;
  const int64_t pitch = group_pitch(units);
  int64_t row = 0;
  if (from.row == 1 && from.column != 1) {
    // Unit by unit: its rows may lie pages apart.
    row = rows / kGroup * kGroup;
    for (int64_t k = 0; k < units; ++k) {
      const auto* x = from.data + k * Unit::kElements * from.column;
      const bool whole = (k + 1) * Unit::kElements <= depth;
      const auto* next = whole ? x + from.column : nullptr;
      float* out = to + k * kGroup;
      int64_t i = 0;
      for (; i + kLanes <= row && kLanes >= kGroup; i += kLanes) {
        alignas(64) float lanes[kLanes];
        const auto* beside = next == nullptr ? nullptr : next + i;
        store(Unit::across(x + i, beside, Full()), lanes, Full());
        for (int64_t r = 0; r < kLanes; r += kGroup) {
          std::memcpy(
              out + (i + r) / kGroup * pitch,
              lanes + r,
              kGroup * sizeof(float));
        }
      }
      for (; i < row; ++i) {
        const auto* beside = next == nullptr ? nullptr : next + i;
        out[i / kGroup * pitch + i % kGroup] = Unit::one(x + i, beside);
      }
    }
  }
  for (; row < round_up(rows, kTileRows); row += kGroup) {
    const auto* x = from.data + row * from.row;
    const int64_t count = std::clamp<int64_t>(rows - row, 0, kGroup);
    if (from.column == 1) {
      fetch_rows(x + kAhead * kGroup * from.row, kGroup, from.row, depth);
      pack_group<Unit>(x, from.row, count, depth, to + row / kGroup * pitch);
    } else {
      pack_rest<Unit>(
          x, from.row, from.column, count, 0, depth, to + row / kGroup * pitch);
    }
  }
}

// Panels of kTileColumns columns: to[k * kTileColumns + j] is unit k of column
// j; missing columns are zero. `group` has room for units x kGroup floats.
template <typename Unit>
HWY_INLINE void pack_right(
    MatmulOperand<typename Unit::T> from,
    int64_t columns,
    int64_t depth, // elements
    float* group,
    float* to) {
  const int64_t units = round_up(depth, Unit::kElements) / Unit::kElements;
  const int64_t padded = round_up(columns, kTileColumns);
  if (from.column == 1) {
    for (int64_t k = 0; k < units; ++k) {
      const auto* row = from.data + k * Unit::kElements * from.row;
      fetch_rows(
          row + kAheadRows * from.row, Unit::kElements, from.row, columns);
      const bool whole = (k + 1) * Unit::kElements <= depth;
      for (int64_t j = 0; j < padded; j += kTileColumns) {
        float* out = to + j * units + k * kTileColumns;
        const int64_t count = HWY_MIN(columns - j, kTileColumns);
        if (count < kTileColumns) {
          std::fill(out, out + kTileColumns, 0.0f);
        }
        for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
          const auto* x = row + j + i;
          const auto* next = whole ? x + from.row : nullptr;
          store(Unit::across(x, next, part), out + i, part);
        });
      }
    }
    return;
  }
  // Columns along the depth: as many units as can be are transposed in
  // registers, others are packed as rows of the left operand, then set side by
  // side.
  int64_t done = 0; // units of the columns at hand
  for (int64_t j = 0; j < padded; j += kGroup) {
    const auto* x = from.data + j * from.column;
    float* const out =
        to + j / kTileColumns * kTileColumns * units + j % kTileColumns;
    if (j % kLanes == 0) {
      fetch_rows(x + kLanes * from.column, kLanes, from.column, depth);
      done = j + kLanes <= columns
          ? pack_columns<Unit>(x, from.column, depth, out)
          : 0;
    }
    if (done == units) {
      continue;
    }
    const int64_t count = std::clamp<int64_t>(columns - j, 0, kGroup);
    pack_group<Unit>(x, from.column, count, depth, group);
    for (int64_t k = done; k < units; ++k) {
      std::memcpy(
          out + k * kTileColumns, group + k * kGroup, kGroup * sizeof(float));
    }
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
