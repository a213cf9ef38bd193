// The entry of attention's backward pass, for products of floats.
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/attention_bf16.h"
#include "deepspeed/kernels/dispatch.h"
#include "deepspeed/kernels/isa.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deepspeed/kernels/attention_backward.cpp"
#include <hwy/foreach_target.h>

#include "deepspeed/kernels/attention_backward_inl.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

void backward_float(
    const AttentionBackward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head<FloatUnits>(args, sequence, head);
}
void backward_bfloat16(
    const AttentionBackward<BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head<FloatUnits>(args, sequence, head);
}
void backward_float16(
    const AttentionBackward<Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  backward_head<FloatUnits>(args, sequence, head);
}

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepspeed::kernels {
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);
HWY_EXPORT(backward_float16);

template <>
void attention_backward(
    const AttentionBackward<float>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(backward_float)(args, sequence, head);
}

template <>
void attention_backward(
    const AttentionBackward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head) {
#if HWY_TARGETS & HWY_AVX3
  if (multiplies_bfloat16()) {
    attention_backward_of_pairs(args, sequence, head);
    return;
  }
#endif
  DS_DISPATCH(backward_bfloat16)(args, sequence, head);
}

template <>
void attention_backward(
    const AttentionBackward<base::Float16>& args,
    const Sequence& sequence,
    int64_t head) {
  DS_DISPATCH(backward_float16)(args, sequence, head);
}

} // namespace deepspeed::kernels
#endif // HWY_ONCE
