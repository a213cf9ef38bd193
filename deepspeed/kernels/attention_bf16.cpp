// Both passes of attention with products of pairs of bfloat16.
#include "deepspeed/kernels/attention_bf16.h"

#include <cmath>
#include <limits>

#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#if HWY_TARGETS & HWY_AVX3
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention_bf16.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Highway has no target for AVX-512 with these instructions: what follows is
// AVX3's, with one more feature and in a namespace of its own, so that no
// function of it can stand in for one without.
#if HWY_TARGET == HWY_AVX3
namespace hwy {
namespace N_AVX3_BF16 = N_AVX3;
}
#undef HWY_NAMESPACE
#define HWY_NAMESPACE N_AVX3_BF16
#undef HWY_TARGET_STR
#define HWY_TARGET_STR HWY_TARGET_STR_AVX3 ",avx512bf16"
#endif

#include "deepspeed/kernels/attention_backward_inl.h"
#include "deepspeed/kernels/attention_forward_inl.h"

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels {
namespace HWY_NAMESPACE {

// A unit is two bfloat16 that follow each other along the depth.
struct PairUnits {
  static constexpr int64_t kNumbers = 2;

  static HWY_INLINE V multiply_add(V a, V b, V sum) {
    return V{_mm512_dpbf16_ps(sum.raw, (__m512bh)a.raw, (__m512bh)b.raw)};
  }

  static HWY_INLINE void pack(
      const BFloat16* from,
      int64_t stride,
      int64_t count,
      int64_t head_dim,
      int64_t row,
      float* to) {
    for (int64_t c = 0; c < head_dim; c += 2 * kLanes) {
      const int64_t rest = HWY_MIN(head_dim - c, 2 * kLanes);
      const __mmask32 mask = 0xffffffff >> (2 * kLanes - rest);
      for (int64_t i = 0; i < count; ++i) {
        _mm512_storeu_si512(
            to + i * row + c / 2,
            _mm512_maskz_loadu_epi16(mask, from + i * stride + c));
      }
    }
  }

  static HWY_INLINE const float* join(
      const float* rows,
      int64_t row,
      int64_t columns,
      int64_t count,
      float* memory) {
    for (int64_t r = 0; r < count; r += 2) {
      const float* low = rows + r * row;
      for (int64_t c = 0; c < columns; c += kLanes) {
        VU pair = bits(low + c / 2);
        if (r + 1 < count) {
          const VU high = bits(low + row + c / 2);
          pair = hn::Or(pair, hn::ShiftLeft<16>(high));
        }
        store(hn::BitCast(D(), pair), memory + r / 2 * columns + c, Full());
      }
    }
    return memory;
  }

  static HWY_INLINE void store_for_queries(V first, V second, float* to) {
    const __m512i rows = rounded(first, second);
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(rows));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to + kQueries / 2),
        _mm512_extracti64x4_epi64(rows, 1));
  }

  static HWY_INLINE void store_for_keys(V first, V second, float* to) {
    const __m512i low_places = _mm512_cvtepu16_epi32(_mm256_setr_epi16(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i places = _mm512_or_si512(
        low_places,
        _mm512_slli_epi32(
            _mm512_add_epi32(low_places, _mm512_set1_epi32(kLanes)), 16));
    _mm512_storeu_si512(
        to, _mm512_permutexvar_epi16(places, rounded(first, second)));
  }

 private:
  static HWY_INLINE VU bits(const float* p) {
    return hn::PromoteTo(
        DU(), hn::LoadU(D16(), reinterpret_cast<const uint16_t*>(p)));
  }
  // First the numbers of `low`, then those of `high`.
  static HWY_INLINE __m512i rounded(V low, V high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high.raw, low.raw);
  }
};

} // namespace HWY_NAMESPACE

void attention_forward_of_pairs(
    const AttentionForward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  HWY_NAMESPACE::forward_head<HWY_NAMESPACE::PairUnits>(args, sequence, head);
}

void attention_backward_of_pairs(
    const AttentionBackward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  HWY_NAMESPACE::backward_head<HWY_NAMESPACE::PairUnits>(args, sequence, head);
}

} // namespace deepspeed::kernels
HWY_AFTER_NAMESPACE();
#endif // HWY_TARGET == HWY_AVX3

#endif // HWY_TARGETS & HWY_AVX3
