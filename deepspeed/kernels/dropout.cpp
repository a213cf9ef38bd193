// Dropout by counter-based random numbers.
#include "deepspeed/kernels/dropout.h"

#include <cmath>
#include <string>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/scratch.h"

#ifndef DEEPSPEED_KERNELS_DROP_ROWS
#define DEEPSPEED_KERNELS_DROP_ROWS
namespace deepspeed::kernels {

// The arguments of dropout_rows.
template <typename T>
struct DropRows {
  const Dropout& dropout;
  const TokenKeys& tokens;
  int64_t columns;
  const T* x;
  T* y;
};

} // namespace deepspeed::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/dropout.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/dropout_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

void bits(
    const Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    int64_t columns,
    uint16_t* out) {
  dropout_row(dropout, PhiloxKeys(dropout.key), visit, row, columns, out);
}

template <typename T>
HWY_INLINE void drop_rows_range(
    const DropRows<T>& args,
    int64_t begin,
    int64_t end) {
  const VU threshold = hn::Set(DU(), args.dropout.threshold);
  const V scale = set(args.dropout.scale);
  const PhiloxKeys keys(args.dropout.key);
  uint16_t* random = reinterpret_cast<uint16_t*>(
      scratch_floats(static_cast<size_t>(args.columns) / 2 + 1));
  for (int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * args.columns;
    T* y = args.y + row * args.columns;
    dropout_row(
        args.dropout,
        keys,
        args.tokens.visit[row],
        args.tokens.position[row],
        args.columns,
        random);
    for_vectors(args.columns, [&](int64_t i, auto part) HWY_ATTR {
      const VU number = load_bits(random + i, part);
      store(drop(load(x + i, part), number, threshold, scale), y + i, part);
    });
  }
}
DS_RANGE_KERNEL(drop_rows, DropRows)

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(bits);
template <typename T>
void drop_rows(const DropRows<T>& args, int64_t begin, int64_t end);
DS_RANGE_ENTRY(drop_rows, DropRows)

Dropout make_dropout(float p, uint64_t seed, uint32_t site) {
  if (!(p >= 0.0f && p <= 1.0f)) {
    throw base::Error(
        base::ExitCode::config,
        "dropout probability " + std::to_string(p) + " is not in [0, 1]",
        "",
        "use 0 for no dropout");
  }
  constexpr uint32_t kAll = 65536;
  Dropout dropout;
  dropout.threshold =
      static_cast<uint32_t>(std::lround(static_cast<double>(p) * kAll));
  dropout.scale = dropout.threshold == kAll
      ? 0.0f
      : static_cast<float>(
            kAll / static_cast<double>(kAll - dropout.threshold));
  dropout.key = base::philox_key(seed, base::Purpose::dropout, site);
  return dropout;
}

void dropout_bits(
    const Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    int64_t columns,
    uint16_t* out) {
  DS_DISPATCH(bits)(dropout, visit, row, columns, out);
}

template <typename T>
void dropout_rows(
    const Dropout& dropout,
    const TokenKeys& tokens,
    int64_t columns,
    const T* x,
    T* y,
    int64_t begin,
    int64_t end) {
  if (dropout.active()) {
    drop_rows<T>({dropout, tokens, columns, x, y}, begin, end);
  } else if (x != y) {
    std::memcpy(
        y + begin * columns,
        x + begin * columns,
        (end - begin) * columns * sizeof(T));
  }
}

template void dropout_rows(
    const Dropout&,
    const TokenKeys&,
    int64_t,
    const float*,
    float*,
    int64_t,
    int64_t);
template void dropout_rows(
    const Dropout&,
    const TokenKeys&,
    int64_t,
    const base::BFloat16*,
    base::BFloat16*,
    int64_t,
    int64_t);
template void dropout_rows(
    const Dropout&,
    const TokenKeys&,
    int64_t,
    const base::Float16*,
    base::Float16*,
    int64_t,
    int64_t);

} // namespace deepspeed::kernels
#endif // HWY_ONCE
