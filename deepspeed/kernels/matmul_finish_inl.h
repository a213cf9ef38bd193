// What becomes of the tiles of a matrix product: bias, sums over parts of the
// depth, GELU; included again for each instruction set.
#if defined(DEEPSPEED_KERNELS_MATMUL_FINISH_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_MATMUL_FINISH_INL_H_
#undef DEEPSPEED_KERNELS_MATMUL_FINISH_INL_H_
#else
#define DEEPSPEED_KERNELS_MATMUL_FINISH_INL_H_
#endif

#include <cstring>
#include <type_traits>

#include "deepspeed/kernels/gelu_inl.h"
#include "deepspeed/kernels/matmul.h"
#include "deepspeed/kernels/matmul_tile_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// A part of the result.
struct Place {
  int64_t row;
  int64_t column;
  int64_t rows;
  int64_t columns;
};

// Where the sums over parts of the depth gather: in the result where that is
// fp32, else in a buffer until the last part.
struct Sums {
  float* data;
  int64_t row;
  bool first; // nothing has been summed yet
  bool last;
};

// The last thing that is done to elements of the result, those at `at`.
template <typename T, typename Out, typename Size>
HWY_INLINE V
through_gelu(const Matmul<T, Out>& args, V x, int64_t at, Size size) {
  if (args.gelu_derivative != nullptr) {
    const Gelu result = gelu(x);
    store(result.derivative, args.gelu_derivative + at, size);
    return result.value;
  }
  return args.gate == nullptr ? x : hn::Mul(x, load(args.gate + at, size));
}

// The sums of a tile, scaled, become a part of the result.
template <typename T, typename Out>
HWY_INLINE void finish_tile(
    const Matmul<T, Out>& args,
    const float* tile,
    Place place,
    Sums sums) {
  constexpr bool kInPlace = std::is_same_v<Out, float>;
  const bool add = args.accumulate && (kInPlace ? sums.first : sums.last);
  const bool add_bias = args.bias != nullptr && sums.first;
  for (int64_t i = 0; i < place.rows; ++i) {
    Out* out = args.out + (place.row + i) * args.out_row + place.column;
    float* partial = sums.data + i * sums.row;
    for_vectors(place.columns, [&](int64_t j, auto part) HWY_ATTR {
      V x = load(tile + i * kTileColumns + j, part);
      if (add_bias) {
        x = hn::Add(x, load(args.bias + place.column + j, part));
      }
      if (!sums.first) {
        x = hn::Add(load(partial + j, part), x);
      }
      if (add) {
        x = hn::Add(load(out + j, part), x);
      }
      if (sums.last) {
        x = through_gelu(args, x, out + j - args.out, part);
      }
      if (kInPlace || sums.last) {
        store(x, out + j, part);
      } else {
        store(x, partial + j, part);
      }
    });
  }
}

// The same straight from the registers, for whole tiles that are done with
// their last part of the depth but need no GELU.
template <typename T, typename Out>
struct Result {
  const Out* gate; // null, or laid out as `to`
  const T* bias; // null, or of the first column
  bool add;
  Out* to;
  int64_t row;

  HWY_INLINE void operator()(V x, int64_t i, int64_t j) const {
    if (bias != nullptr) {
      x = hn::Add(x, load(bias + j, Full()));
    }
    if (add) {
      x = hn::Add(load(to + i * row + j, Full()), x);
    }
    if (gate != nullptr) {
      x = hn::Mul(x, load(gate + i * row + j, Full()));
    }
    store(x, to + i * row + j, Full());
  }
};

// How whole tiles are finished.
enum class Finish {
  in_buffer, // by finish_tile()
  result, // by Result
  floats, // they are the result, or its first part
  past_caches, // the same, streamed
};

template <typename T, typename Out>
HWY_INLINE Finish finish_of(const Matmul<T, Out>& args, Sums sums) {
  if (args.gelu_derivative != nullptr || !sums.first) {
    return Finish::in_buffer;
  }
  const bool plain =
      !args.accumulate && args.bias == nullptr && args.gate == nullptr;
  if (std::is_same_v<Out, float> && plain) {
    constexpr int64_t kBytes = kLanes * sizeof(float);
    const bool aligned = args.out_row % kLanes == 0 &&
        reinterpret_cast<uintptr_t>(args.out) % kBytes == 0;
    return sums.last && args.streams && aligned ? Finish::past_caches
                                                : Finish::floats;
  }
  return sums.last ? Finish::result : Finish::in_buffer;
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
