// Packs the operands of a matrix product into panels, see matmul_tile_inl.h;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>

#include "deepspeed/kernels/matmul_tile_inl.h"
#include "deepspeed/kernels/transpose_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// Rows of the left operand, or columns of the right one: `count` lines, `line`
// elements apart, whose elements are `along` apart. One of the two is 1.
template <typename T>
struct Lines {
  const T* data;
  int64_t count;
  int64_t line;
  int64_t depth; // elements of a line
  int64_t along;
};

// Asks for memory before it is needed, row by row: read side by side, rows come
// at half the speed. Into the L2 cache.
template <typename T>
HWY_INLINE void fetch_rows(
    const T* from,
    int64_t rows,
    int64_t stride,
    int64_t count) {
  for (int64_t row = 0; row < rows; ++row) {
    const char* p = reinterpret_cast<const char*>(from + row * stride);
    for (int64_t i = 0; i < count * static_cast<int64_t>(sizeof(T)); i += 64) {
      __builtin_prefetch(p + i, 0, 2);
    }
  }
}

// One unit of `count` lines that stand side by side, for all panels. `next`:
// its second element, if it has one. Not inline: the loop needs the registers.
template <typename Unit, int64_t kWidth, typename T>
HWY_NOINLINE void pack_unit_across(
    const T* x,
    const T* next,
    int64_t count,
    int64_t pitch,
    float* to) {
  constexpr int64_t kStep = HWY_MIN(kLanes, kWidth);
  // A vector may reach past the panel: into the next unit, which is set later,
  // or into the gap between two panels.
  int64_t first = 0;
  if (next != nullptr || Unit::kElements == 1) {
    for (; first + kWidth - kStep + kLanes <= count; first += kWidth) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kWidth; i += kStep) {
        const T* second = next == nullptr ? nullptr : next + first + i;
        store(Unit::across(x + first + i, second, Full()), to + i, Full());
      }
      to += pitch;
    }
  }
  for (; first < count; first += kWidth) {
    for (int64_t i = 0; i < kWidth; i += kStep) {
      const int64_t rest = HWY_MIN(count - first - i, kLanes);
      const Part part{static_cast<size_t>(HWY_MAX(rest, 0))};
      const T* second = next == nullptr ? nullptr : next + first + i;
      store(Unit::across(x + first + i, second, part), to + i, Full());
    }
    to += pitch;
  }
}

// Lines that stand side by side in memory: unit by unit for all panels, as the
// rows of memory may lie pages apart.
template <typename Unit, int64_t kWidth, typename T>
HWY_INLINE void pack_across(
    Lines<T> lines,
    int64_t units,
    int64_t pitch,
    float* to) {
  constexpr int64_t kAheadRows = 16;
  for (int64_t k = 0; k < units; ++k) {
    const T* row = lines.data + k * Unit::kElements * lines.along;
    fetch_rows(
        row + kAheadRows * lines.along,
        Unit::kElements,
        lines.along,
        lines.count);
    const bool whole = (k + 1) * Unit::kElements <= lines.depth;
    pack_unit_across<Unit, kWidth>(
        row,
        whole ? row + lines.along : nullptr,
        lines.count,
        pitch,
        to + k * kWidth);
  }
}

// One unit of each of up to kWidth lines, of any strides.
template <typename Unit, int64_t kWidth, typename T>
HWY_INLINE void pack_unit(Lines<T> lines, int64_t k, float* to) {
  const bool whole = (k + 1) * Unit::kElements <= lines.depth;
  for (int64_t i = 0; i < kWidth; ++i) {
    const T* p =
        lines.data + i * lines.line + k * Unit::kElements * lines.along;
    to[k * kWidth + i] = i >= lines.count
        ? 0.0f
        : Unit::one(p, whole ? p + lines.along : nullptr);
  }
}

// kLanes units, from unit k on, of up to kWidth lines that follow the depth.
template <typename Unit, int64_t kWidth, typename T>
HWY_INLINE void pack_block(Lines<T> lines, int64_t k, float* to) {
  const auto units_of = [&](int64_t i) HWY_ATTR {
    return i < lines.count
        ? Unit::along(lines.data + i * lines.line + k * Unit::kElements)
        : zero();
  };
#if HWY_TARGET == HWY_AVX3
  for (int64_t first = 0; first < kWidth; first += kLanes) {
    V rows[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      rows[i] = units_of(first + i);
    }
    transpose(rows);
    // In this order: a vector may reach into the next unit.
    for (int64_t i = 0; i < kLanes; ++i) {
      store(rows[i], to + (k + i) * kWidth + first, Full());
    }
  }
#else
  static_assert(kWidth % 4 == 0);
  for (int64_t first = 0; first < kWidth; first += 4) {
    alignas(64) float fours[4 * kLanes];
    hn::StoreInterleaved4(
        units_of(first),
        units_of(first + 1),
        units_of(first + 2),
        units_of(first + 3),
        D(),
        fours);
    for (int64_t i = 0; i < kLanes; ++i) {
      std::memcpy(
          to + (k + i) * kWidth + first, fours + 4 * i, 4 * sizeof(float));
    }
  }
#endif
}

// Panels of kWidth lines, `pitch` apart; missing lines are zero.
template <typename Unit, int64_t kWidth, typename T>
HWY_INLINE void pack_units(Lines<T> lines, int64_t pitch, float* to) {
  constexpr int64_t kAheadLines = 16;
  const int64_t units =
      round_up(lines.depth, Unit::kElements) / Unit::kElements;
  if (lines.along != 1) {
    pack_across<Unit, kWidth>(lines, units, pitch, to);
    return;
  }
  for (int64_t first = 0; first < lines.count; first += kWidth) {
    Lines<T> panel = lines;
    panel.data += first * lines.line;
    panel.count = HWY_MIN(lines.count - first, kWidth);
    fetch_rows(
        panel.data + kAheadLines * lines.line, kWidth, lines.line, lines.depth);
    int64_t k = 0;
    for (; (k + kLanes) * Unit::kElements <= lines.depth; k += kLanes) {
      pack_block<Unit, kWidth>(panel, k, to);
    }
    for (; k < units; ++k) {
      pack_unit<Unit, kWidth>(panel, k, to);
    }
    to += pitch;
  }
}

// Units of lines of this depth, filled up.
template <typename Unit>
HWY_INLINE int64_t padded_units(int64_t depth) {
  return round_up(
      round_up(depth, Unit::kElements) / Unit::kElements, Unit::kDepth);
}

// Panels of kWidth lines, panel_pitch() apart, with zeros to fill up the depth.
template <typename Unit, int64_t kWidth, typename T>
HWY_INLINE void pack(Lines<T> lines, float* to) {
  const int64_t units = padded_units<Unit>(lines.depth);
  const int64_t pitch = panel_pitch<kWidth>(units);
  pack_units<Unit, kWidth>(lines, pitch, to);
  const int64_t used =
      round_up(lines.depth, Unit::kElements) / Unit::kElements * kWidth;
  for (int64_t first = 0; first < lines.count; first += kWidth) {
    std::fill(to + used, to + units * kWidth, 0.0f);
    to += pitch;
  }
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
