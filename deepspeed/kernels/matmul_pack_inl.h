// Packs the operands of a matrix product into panels, see matmul_tile_inl.h;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>

#include "deepspeed/kernels/matmul_pack_across_inl.h"
#include "deepspeed/kernels/transpose_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

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
