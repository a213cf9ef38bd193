// For norms of gradients.
#pragma once

#include <cstdint>

namespace deepspeed::optim {

// Of n numbers, on all threads: blocks of fixed size in double, added in order,
// so that the number of threads does not matter.
double sum_of_squares(const float* x, int64_t n);

} // namespace deepspeed::optim
