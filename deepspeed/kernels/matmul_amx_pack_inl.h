// The left operand for the tile registers of AMX; included again for each
// instruction set, of which AVX-512 alone needs it.
#if defined(DEEPSPEED_KERNELS_MATMUL_AMX_PACK_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_AMX_PACK_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_AMX_PACK_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_AMX_PACK_INL_H_
#endif

#include "deepspeed/kernels/matmul_left_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {
#if HWY_TARGET == HWY_AVX3

constexpr int64_t kAmxRows = 16; // of a tile register, and vectors of floats

// What ldtilecfg reads: every register whole.
struct AmxShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(AmxShapes) == 64);

// While it lives, the thread's tile registers may be used.
class AmxScope {
 public:
  HWY_INLINE AmxScope() {
    static constexpr AmxShapes kShapes;
    asm volatile("ldtilecfg %0" : : "m"(kShapes));
  }
  HWY_INLINE ~AmxScope() {
    asm volatile("tilerelease");
  }
  AmxScope(const AmxScope&) = delete;
  AmxScope& operator=(const AmxScope&) = delete;
};

// Pairs of bfloat16, in tiles of two by two registers.
struct AmxPairs : Pairs {
  static constexpr int64_t kRows = 2 * kAmxRows;
  static constexpr int64_t kDepth = 16;
  using Scope = AmxScope;
};

// Packed lines of the left operand: unit k of line i at i * pitch + k.
template <>
class PackedLeft<AmxPairs> {
 public:
  static int64_t size(int64_t lines, int64_t units) {
    return lines * pitch(units);
  }

  PackedLeft(const Lines<BFloat16>& lines, int64_t units, float* to)
      : data_(to), pitch_(pitch(units)) {
    if (lines.along == 1) {
      copy(lines, units);
    } else {
      turn(lines, units);
    }
  }

  HWY_INLINE Left panel(int64_t i) const {
    return {data_ + i * pitch_, pitch_, 1};
  }

 private:
  // With a gap: all lines would begin in the same few sets of the cache.
  static int64_t pitch(int64_t units) {
    return units + 16;
  }

  void copy(const Lines<BFloat16>& lines, int64_t units) {
    constexpr int64_t kAheadLines = 16;
    const size_t bytes = lines.depth * sizeof(BFloat16);
    for (int64_t i = 0; i < lines.count; ++i) {
      const BFloat16* from = lines.data + i * lines.line;
      fetch_rows(from + kAheadLines * lines.line, 1, 0, lines.depth);
      char* const to = reinterpret_cast<char*>(data_ + i * pitch_);
      std::memcpy(to, from, bytes);
      std::memset(to + bytes, 0, units * sizeof(float) - bytes);
    }
  }

  // Lines that stand side by side in memory.
  void turn(const Lines<BFloat16>& lines, int64_t units) {
    for (int64_t k = 0; k < units; k += kLanes) {
      fetch_rows(
          lines.data + 2 * (k + kLanes) * lines.along,
          2 * kLanes,
          lines.along,
          lines.count);
      for (int64_t first = 0; first < lines.count; first += kLanes) {
        const int64_t count = HWY_MIN(lines.count - first, kLanes);
        V rows[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          rows[i] = unit_of_lines(lines, k + i, first, count);
        }
        transpose(rows);
        for (int64_t i = 0; i < count; ++i) {
          store(rows[i], data_ + (first + i) * pitch_ + k, Full());
        }
      }
    }
  }

  static HWY_INLINE V unit_of_lines(
      const Lines<BFloat16>& lines,
      int64_t unit,
      int64_t first,
      int64_t count) {
    const int64_t k = 2 * unit;
    if (k >= lines.depth) {
      return zero();
    }
    const BFloat16* x = lines.data + k * lines.along + first;
    const BFloat16* next = k + 1 < lines.depth ? x + lines.along : nullptr;
    return count == kLanes
        ? Pairs::across(x, next, Full())
        : Pairs::across(x, next, Part{static_cast<size_t>(count)});
  }

  float* data_;
  int64_t pitch_;
};

#endif // HWY_TARGET == HWY_AVX3
} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
