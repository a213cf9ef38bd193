// Packs lines of an operand of a matrix product that stand side by side in
// memory; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_PACK_ACROSS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_PACK_ACROSS_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_PACK_ACROSS_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_PACK_ACROSS_INL_H_
#endif

#include "deepspeed/kernels/matmul_tile_inl.h"

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

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
