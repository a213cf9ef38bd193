// The entry of attention's forward pass, for products of floats.
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/attention_bf16.h"
#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/isa.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention_forward.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/attention_forward_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

void forward_float(
    const AttentionForward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head<FloatUnits>(args, sequence, head);
}
void forward_bfloat16(
    const AttentionForward<BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head<FloatUnits>(args, sequence, head);
}
void forward_float16(
    const AttentionForward<Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  forward_head<FloatUnits>(args, sequence, head);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);
HWY_EXPORT(forward_float16);

template <>
void attention_forward(
    const AttentionForward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(forward_float)(args, sequence, head);
}

template <>
void attention_forward(
    const AttentionForward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
#if HWY_TARGETS & HWY_AVX3
  if (multiplies_bfloat16()) {
    attention_forward_of_pairs(args, sequence, head);
    return;
  }
#endif
  DS_DISPATCH(forward_bfloat16)(args, sequence, head);
}

template <>
void attention_forward(
    const AttentionForward<base::Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(forward_float16)(args, sequence, head);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
