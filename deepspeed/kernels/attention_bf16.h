// Attention of bfloat16 for processors that multiply pairs of them (AVX-512
// with vdpbf16ps): what attention.h calls where multiplies_bfloat16() holds.
//
// Sums, scores, softmax and log-sum-exp are float, as without the instruction;
// but probabilities and the gradients of the scores are rounded to bfloat16
// before they are multiplied, and denormal numbers count as zero.
#pragma once

#include "deepspeed/kernels/attention.h"

namespace deepspeed::kernels {

void attention_forward_of_pairs(
    const AttentionForward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head);

void attention_backward_of_pairs(
    const AttentionBackward<base::BFloat16>& args,
    const Sequence& sequence,
    int64_t head);

} // namespace deepspeed::kernels
