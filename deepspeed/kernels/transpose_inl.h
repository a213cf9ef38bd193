// Square blocks of 32-bit lanes, transposed in registers; included again for
// each instruction set.
#if defined(DEEPSPEED_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_TRANSPOSE_INL_H_
#undef DEEPSPEED_KERNELS_TRANSPOSE_INL_H_
#else
#define DEEPSPEED_KERNELS_TRANSPOSE_INL_H_
#endif

#include "deepspeed/kernels/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
// Lane c of rows[r] goes to lane r of rows[c].
HWY_INLINE void transpose(V (&rows)[16]) {
  __m512 pairs[16];
  __m512 fours[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].raw, rows[i + 1].raw);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].raw, rows[i + 1].raw);
  }
  const auto unpack_low = [](__m512 a, __m512 b) HWY_ATTR {
    return _mm512_castpd_ps(
        _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto unpack_high = [](__m512 a, __m512 b) HWY_ATTR {
    return _mm512_castpd_ps(
        _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  // Block b of fours[4 q + c] holds lanes 4 b + c of rows 4 q to 4 q + 3.
  for (int q = 0; q < 16; q += 4) {
    fours[q] = unpack_low(pairs[q], pairs[q + 2]);
    fours[q + 1] = unpack_high(pairs[q], pairs[q + 2]);
    fours[q + 2] = unpack_low(pairs[q + 1], pairs[q + 3]);
    fours[q + 3] = unpack_high(pairs[q + 1], pairs[q + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 even0 = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0x88);
    const __m512 odd0 = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0xdd);
    const __m512 even1 =
        _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0xdd);
    rows[c] = V{_mm512_shuffle_f32x4(even0, even1, 0x88)};
    rows[4 + c] = V{_mm512_shuffle_f32x4(odd0, odd1, 0x88)};
    rows[8 + c] = V{_mm512_shuffle_f32x4(even0, even1, 0xdd)};
    rows[12 + c] = V{_mm512_shuffle_f32x4(odd0, odd1, 0xdd)};
  }
}
#endif

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
