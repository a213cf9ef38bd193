// Collectives between GPUs, by NCCL.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>

#include "deepspeed/comm/transport.h"
#include "deepspeed/cuda/module.h"

namespace deepspeed::comm {

struct NcclOptions {
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout{};
  at::Device device = at::kCPU; // of this rank; the CPU only with a stand-in
  // What a rank receives at a time, from all others: enough for fast links,
  // little beside a model.
  int64_t staging_bytes = int64_t{64} << 20;
};

// Connects the GPUs of all ranks; `host` carries what they have to tell each
// other first, and is not kept. `module` must outlive the transport. Buffers
// lie on the device. Throws base::Error(unavailable).
std::unique_ptr<Transport> make_nccl_transport(
    const cuda::Module& module,
    const NcclOptions& options,
    Transport& host);

} // namespace deepspeed::comm
