// Matrix products in the tile registers of AMX (Intel, Architecture Instruction
// Set Extensions Programming Reference, chapter 3): 16 rows of 64 bytes each.
// Included again for each instruction set, of which AVX-512 alone needs it.
#if defined(DEEPSPEED_KERNELS_MATMUL_AMX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_AMX_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_AMX_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_AMX_INL_H_
#endif

#include "deepspeed/kernels/matmul_amx_pack_inl.h"
#include "deepspeed/kernels/matmul_finish_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {
#if HWY_TARGET == HWY_AVX3

// The intrinsics of GCC 12 do not say that they read memory.
template <int kRegister>
HWY_INLINE void amx_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kRegister));
}
template <int kRegister>
HWY_INLINE void amx_load(const float* from, int64_t row) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(row * int64_t{sizeof(float)}), "i"(kRegister)
               : "memory");
}
template <int kRegister>
HWY_INLINE void amx_store(float* to, int64_t row) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(to), "r"(row * int64_t{sizeof(float)}), "i"(kRegister)
               : "memory");
}
// Rows of pairs times columns of pairs, one pair after the other.
template <int kSum, int kLeft, int kRight>
HWY_INLINE void amx_multiply_add() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kSum), "i"(kLeft), "i"(kRight));
}

// kDown * 16 rows of left panel x right panel, to rows `row` apart.
template <int kDown>
HWY_NOINLINE void multiply_amx(
    const Panels& panels,
    Ahead ahead,
    float* to,
    int64_t row) {
  static_assert(kTileColumns == 2 * kAmxRows);
  const Left left = panels.left;
  amx_zero<0>();
  amx_zero<1>();
  if constexpr (kDown == 2) {
    amx_zero<2>();
    amx_zero<3>();
  }
  for (int64_t k = 0; k < panels.units; k += AmxPairs::kDepth) {
    const float* right = panels.right + k * kTileColumns;
    amx_load<6>(right, kTileColumns);
    amx_load<7>(right + kAmxRows, kTileColumns);
    amx_load<4>(left.data + k, left.line);
    amx_multiply_add<0, 4, 6>();
    amx_multiply_add<1, 4, 7>();
    if constexpr (kDown == 2) {
      amx_load<5>(left.data + kAmxRows * left.line + k, left.line);
      amx_multiply_add<2, 5, 6>();
      amx_multiply_add<3, 5, 7>();
    }
    for (int64_t i = 0; i < 2 * AmxPairs::kDepth; ++i) {
      __builtin_prefetch(ahead.data, 0, 2); // into the L2 cache
      ahead.data += ahead.step;
    }
  }
  amx_store<0>(to, row);
  amx_store<1>(to + kAmxRows, row);
  if constexpr (kDown == 2) {
    amx_store<2>(to + kAmxRows * row, row);
    amx_store<3>(to + kAmxRows * row + kAmxRows, row);
  }
}

// make_tile() of matmul.cpp.
template <typename T, typename Out>
HWY_INLINE void make_tile(
    AmxPairs,
    const Matmul<T, Out>& args,
    const Panels& panels,
    const Ahead& ahead,
    Finish finish,
    Place at,
    Sums sums) {
  const bool whole = at.rows == AmxPairs::kRows && at.columns == kTileColumns;
  alignas(64) float tile[AmxPairs::kRows * kTileColumns];
  const bool in_place = whole && finish == Finish::floats && args.scale == 1.0f;
  float* const to = in_place ? sums.data : tile;
  const int64_t row = in_place ? sums.row : kTileColumns;
  if (at.rows > kAmxRows) {
    multiply_amx<2>(panels, ahead, to, row);
  } else {
    multiply_amx<1>(panels, ahead, to, row);
  }
  if (in_place) {
    return;
  }
  const V scale = set(args.scale);
  const bool streams = whole && finish == Finish::past_caches;
  for (int64_t i = 0; i < at.rows; ++i) {
    for (int64_t j = 0; j < kTileColumns; j += kLanes) {
      float* const place = tile + i * kTileColumns + j;
      const V x = hn::Mul(scale, load(place, Full()));
      if (streams) {
        hn::Stream(x, D(), sums.data + i * sums.row + j);
      } else {
        store(x, place, Full());
      }
    }
  }
  if (!streams) {
    finish_tile(args, tile, at, sums);
  }
}

#endif // HWY_TARGET == HWY_AVX3
} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
