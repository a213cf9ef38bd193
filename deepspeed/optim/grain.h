// How much work an update hands to a thread.
#pragma once

#include <cstdint>

namespace deepspeed::optim {

// Elements of one parallel task: below that, another thread does not pay.
inline constexpr int64_t kGrain = 1 << 16;

} // namespace deepspeed::optim
