// Working memory of the kernels: one buffer for each thread.
#pragma once

#include <cstddef>

namespace deepspeed::kernels {

// At least `count` floats, aligned to 64 bytes, with any content; valid until
// the thread's next call. Grows and is kept until the thread ends.
float* scratch_floats(size_t count);

} // namespace deepspeed::kernels
