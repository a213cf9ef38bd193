// The shared object with NCCL, where a program wants it.
#pragma once

#include "deepspeed/cuda/module.h"

namespace deepspeed::comm {

// Loads the GPU part of libtorch and libdeepspeed_cuda.so: from the folder lib/
// beside that of the program, or from where the system looks for libraries.
// They stay loaded. Throws base::Error(config) saying what is missing: one of
// the two, a GPU, or the right version. Thread-safe.
const cuda::Module& load_cuda_module();

} // namespace deepspeed::comm
