// What both passes of attention share: padding, packing and scratch memory;
// included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_INL_H_
#endif

#include "deepspeed/kernels/dropout_inl.h"
#include "deepspeed/kernels/matmul_inl.h"
#include "deepspeed/kernels/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

constexpr int64_t kSlack = 256; // floats, for the alignment of the parts
constexpr int64_t kQueries = 32; // of one tile: its scores stay in the L2 cache

HWY_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Sizes of the padded matrices in scratch memory, in floats.
struct Padding {
  Padding(int64_t length, int64_t head_dim)
      : columns(round_up(length, kLanes)),
        rows(round_up(columns, kRowPadding)),
        head(round_up(head_dim, kLanes)),
        // An odd number of vectors, else the rows of long sequences all fall
        // into the same few sets of the cache.
        stride(columns + (columns / kLanes % 2 == 0 ? kLanes : 0)) {}

  int64_t columns; // keys, as columns of the scores
  int64_t rows; // keys, as rows
  int64_t head;
  int64_t stride; // of matrices with a column for each key
};

// Hands out parts of one scratch buffer.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(int64_t count) {
    float* part = next_;
    next_ += round_up(count, 16);
    return part;
  }

 private:
  float* next_;
};

// to[i] = factor * from[i] for `count` rows of `width`, the rest of [rows,
// padded width] is zero.
template <typename T>
HWY_INLINE void pack_rows(
    const T* from,
    int64_t from_stride,
    int64_t count,
    int64_t width,
    int64_t padded_width,
    float factor,
    float* to) {
  for (int64_t row = 0; row < count; ++row) {
    for_vectors(width, [&](int64_t i, auto part) HWY_ATTR {
      const V x = load(from + row * from_stride + i, part);
      store(hn::Mul(x, set(factor)), to + row * padded_width + i, Full());
    });
  }
}

// Row r of `from` becomes column r of `to`; the columns past `count` are zero.
HWY_INLINE void transpose(
    const float* from,
    int64_t from_stride,
    int64_t count,
    int64_t width,
    const Padding& padding,
    float* to) {
  using DI = hn::RebindToSigned<D>;
  const auto index = hn::Mul(
      hn::Iota(DI(), 0), hn::Set(DI(), static_cast<int32_t>(from_stride)));
  for (int64_t r = 0; r < padding.columns; r += kLanes) {
    const int64_t here = count - r;
    for (int64_t c = 0; c < width; ++c) {
      const float* at = from + r * from_stride + c;
      float* out = to + c * padding.stride + r;
      if (here >= kLanes) {
        store(hn::GatherIndex(D(), at, index), out, Full());
      } else {
        for (int64_t k = 0; k < kLanes; ++k) {
          out[k] = k < here ? at[k * from_stride] : 0.0f;
        }
      }
    }
  }
}

// to = factor * from.
template <typename T>
HWY_INLINE void unpack_row(
    const float* from,
    int64_t count,
    float factor,
    T* to) {
  for_vectors(count, [&](int64_t i, auto part) HWY_ATTR {
    store(hn::Mul(load(from + i, part), set(factor)), to + i, part);
  });
}

HWY_INLINE uint32_t dropout_key_row(int64_t head, int64_t query) {
  return static_cast<uint32_t>(head) << 16 | static_cast<uint32_t>(query);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
