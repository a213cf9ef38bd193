// What the shared object libdeepspeed_cuda.so offers: NCCL behind plain
// functions.
//
// It is opened at run time and only where GPUs are to communicate, so that a
// program without a GPU needs neither CUDA nor NCCL. The object is linked to
// nothing of CUDA itself: libtorch_cuda.so brings libcudart and libnccl with it
// and must have been loaded with RTLD_GLOBAL before. So there is one NCCL in a
// process, and one object fits every libtorch of the same CUDA.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepspeed::cuda {

inline constexpr int kModuleVersion = 1; // of this page
inline constexpr const char* kModuleFile = "libdeepspeed_cuda.so";
inline constexpr const char* kModuleEntry = "deepspeed_cuda_module";
inline constexpr int kIdBytes = 128; // of a communicator

struct Communicator; // the ranks that communicate, one GPU each

// What travels between this rank and another one; either part may be empty.
struct Message {
  int peer;
  const void* send;
  int64_t send_bytes;
  void* receive;
  int64_t receive_bytes;
};

// Memory is the GPU's, `stream` a cudaStream_t. Calls with a communicator come
// from one thread at a time; they only queue what they do on the stream, up to
// finish(). Each returns null, or what went wrong (valid on this thread until
// its next call); the communicator is good for leave() only then.
struct Module {
  int version; // kModuleVersion; stays the first member

  // Whether the NCCL of this process will do.
  const char* (*check)();
  // On one rank; the others get its kIdBytes bytes.
  const char* (*make_id)(void* id);

  // Called by all ranks. `seconds`: how long to wait for other ranks, here and
  // in finish().
  struct Place {
    int rank;
    int size;
    int device;
    double seconds;
  };
  const char* (*join)(const void* id, const Place* place, Communicator** made);
  // Null is fine.
  void (*leave)(Communicator* communicator);

  const char* (*exchange)(
      Communicator* communicator,
      const Message* messages,
      int64_t count,
      void* stream);
  // Bytes [bounds[r], bounds[r + 1]) of rank r go to every rank.
  const char* (*gather)(
      Communicator* communicator,
      void* data,
      const int64_t* bounds,
      void* stream);
  const char* (*broadcast)(
      Communicator* communicator,
      void* data,
      int64_t bytes,
      int root,
      void* stream);
  // Returns when all that was queued on the stream is done.
  const char* (*finish)(Communicator* communicator, void* stream);
};

} // namespace deepspeed::cuda

// The entry point, to be found by dlsym().
extern "C" const deepspeed::cuda::Module* deepspeed_cuda_module();
