// Initial weights from the counter-based generator.
#pragma once

#include <cstdint>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::bert {

// Fills a contiguous fp32 tensor with N(0, deviation^2): element i depends on
// (seed, stream, i) alone. Box and Muller, "A note on the generation of random
// normal deviates" (1958), in fp32.
void fill_normal(
    at::Tensor& tensor,
    double deviation,
    uint64_t seed,
    uint32_t stream);

} // namespace deepspeed::bert
