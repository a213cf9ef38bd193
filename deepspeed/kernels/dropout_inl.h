// The random numbers of rows, and masks made from them; included again for
// each instruction set.
#if defined(DEEPSPEED_KERNELS_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_DROPOUT_INL_H_
#undef DEEPSPEED_KERNELS_DROPOUT_INL_H_
#else
#define DEEPSPEED_KERNELS_DROPOUT_INL_H_
#endif

#include "deepspeed/kernels/dropout.h"
#include "deepspeed/kernels/float16_inl.h"
#include "deepspeed/kernels/philox_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// The random numbers of columns [0, columns) of one row, see dropout.h. `keys`
// are those of the dropout.
HWY_INLINE void dropout_row(
    [[maybe_unused]] const Dropout& dropout,
    [[maybe_unused]] const PhiloxKeys& keys,
    uint64_t visit,
    uint32_t row,
    int64_t columns,
    uint16_t* out) {
  int64_t column = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kStep = kBlocks * kBlockColumns;
  for (; column + kStep <= columns; column += kStep) {
    const auto block = static_cast<uint32_t>(column / kBlockColumns);
    philox_blocks(row, block, visit, keys, out + column);
  }
  if (column < columns) {
    alignas(64) uint16_t rest[kStep];
    const auto block = static_cast<uint32_t>(column / kBlockColumns);
    philox_blocks(row, block, visit, keys, rest);
    std::memcpy(out + column, rest, (columns - column) * sizeof(uint16_t));
  }
#else
  for (; column < columns; column += kBlockColumns) {
    uint16_t rest[kBlockColumns];
    const int64_t count =
        columns - column < kBlockColumns ? columns - column : kBlockColumns;
    philox_block(
        {row,
         static_cast<uint32_t>(column / kBlockColumns),
         static_cast<uint32_t>(visit),
         static_cast<uint32_t>(visit >> 32)},
        dropout.key,
        rest);
    std::memcpy(out + column, rest, count * sizeof(uint16_t));
  }
#endif
}

HWY_INLINE VU load_bits(const uint16_t* p, Full) {
  return hn::PromoteTo(DU(), hn::LoadU(D16(), p));
}
HWY_INLINE VU load_bits(const uint16_t* p, Part part) {
  uint16_t buffer[kLanes] = {};
  std::memcpy(buffer, p, part.count * sizeof(uint16_t));
  return load_bits(buffer, Full());
}

// scale * x where the random number is at least the threshold, otherwise zero;
// a dropped NaN or infinity is NaN, as x * 0 is in PyTorch.
HWY_INLINE V drop(V x, VU bits, VU threshold, V scale) {
  const auto stays = hn::RebindMask(D(), hn::Not(hn::Lt(bits, threshold)));
  return hn::Mul(x, hn::IfThenElseZero(stays, scale));
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
