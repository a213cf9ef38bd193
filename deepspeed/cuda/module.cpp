// NCCL behind the functions of module.h.
//
// Communicators do not block (ncclConfig_t::blocking = 0): a call that waits
// for another rank, such as the first one that connects to it, gives up at the
// timeout. Nothing here throws or knows libtorch.
#include "deepspeed/cuda/module.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

namespace deepspeed::cuda {

struct Communicator {
  ncclComm_t comm = nullptr; // null after a failure
  int rank = 0;
  int size = 1;
  int device = 0;
  std::chrono::duration<double> timeout{};
  cudaEvent_t done = nullptr;
};

namespace {

constexpr int kOldestNccl = NCCL_VERSION(2, 18, 0);
static_assert(NCCL_VERSION_CODE >= kOldestNccl);
static_assert(sizeof(ncclUniqueId) == kIdBytes);

const char* failure(std::string text) {
  thread_local std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

// Waiting for other ranks: short naps, after a short time without.
class Wait {
 public:
  explicit Wait(std::chrono::duration<double> most)
      : start_(std::chrono::steady_clock::now()), most_(most) {}
  bool is_over() const {
    return std::chrono::steady_clock::now() - start_ > most_;
  }
  void pause() const {
    if (std::chrono::steady_clock::now() - start_ < kAwake) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
  std::string text() const {
    constexpr int kMost = 100;
    char text[kMost];
    std::snprintf(
        text,
        kMost,
        "no answer from the other ranks within %g seconds",
        most_.count());
    return text;
  }

 private:
  static constexpr std::chrono::microseconds kAwake{100};
  static constexpr std::chrono::microseconds kNap{50};
  std::chrono::steady_clock::time_point start_;
  std::chrono::duration<double> most_;
};

// The device of the calling thread, while it lives.
class UseDevice {
 public:
  explicit UseDevice(int device) {
    known_ = ::cudaGetDevice(&before_) == cudaSuccess;
    error_ = ::cudaSetDevice(device);
  }
  ~UseDevice() {
    if (known_) {
      ::cudaSetDevice(before_);
    }
  }
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;
  cudaError_t error() const {
    return error_;
  }

 private:
  int before_ = 0;
  bool known_ = false;
  cudaError_t error_ = cudaSuccess;
};

// Ends the communicator: kernels that wait for other ranks end, too.
const char* abort_with(Communicator& communicator, std::string text) {
  if (communicator.comm != nullptr) {
    ::ncclCommAbort(communicator.comm);
    communicator.comm = nullptr;
  }
  return failure(std::move(text));
}

const char* cuda_failure(Communicator& communicator, cudaError_t error) {
  ::cudaGetLastError(); // forgets it
  return abort_with(communicator, ::cudaGetErrorString(error));
}

const char* nccl_failure(Communicator& communicator, ncclResult_t result) {
  std::string text = ::ncclGetErrorString(result);
  const char* const more = ::ncclGetLastError(communicator.comm);
  if (more != nullptr && *more != '\0') {
    text += std::string(": ") + more;
  }
  return abort_with(communicator, std::move(text));
}

bool is_failed(ncclResult_t result) {
  return result != ncclSuccess && result != ncclInProgress;
}

// How the call before went on; it may have been under way.
ncclResult_t ask(const Communicator& communicator) {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ::ncclCommGetAsyncError(communicator.comm, &state);
  return asked != ncclSuccess ? asked : state;
}

// Returns when NCCL has put a call on its stream, or could not.
const char* settle(Communicator& communicator, ncclResult_t result) {
  const Wait wait(communicator.timeout);
  while (result == ncclInProgress) {
    if (wait.is_over()) {
      return abort_with(communicator, wait.text());
    }
    wait.pause();
    result = ask(communicator);
  }
  return result == ncclSuccess ? nullptr : nccl_failure(communicator, result);
}

// Runs what `calls` calls as one group of NCCL.
template <typename Calls>
const char* as_group(Communicator& communicator, const Calls& calls) {
  if (communicator.comm == nullptr) {
    return failure("the communicator has failed before");
  }
  const UseDevice device(communicator.device);
  if (device.error() != cudaSuccess) {
    return cuda_failure(communicator, device.error());
  }
  ncclResult_t worst = ::ncclGroupStart();
  if (worst == ncclSuccess) {
    worst = calls();
    const ncclResult_t end = ::ncclGroupEnd(); // after a failure, too
    if (!is_failed(worst)) {
      worst = end;
    }
  }
  return settle(communicator, worst);
}

const char* check() {
  int version = 0;
  const ncclResult_t result = ::ncclGetVersion(&version);
  if (result != ncclSuccess) {
    return failure(::ncclGetErrorString(result));
  }
  if (version < kOldestNccl) {
    return failure(
        "NCCL is of version code " + std::to_string(version) + ", older than " +
        std::to_string(kOldestNccl));
  }
  return nullptr;
}

const char* make_id(void* id) {
  ncclUniqueId made;
  const ncclResult_t result = ::ncclGetUniqueId(&made);
  if (result != ncclSuccess) {
    return failure(
        std::string(::ncclGetErrorString(result)) + ": " +
        ::ncclGetLastError(nullptr));
  }
  std::memcpy(id, &made, sizeof made);
  return nullptr;
}

void leave(Communicator* communicator) {
  if (communicator == nullptr) {
    return;
  }
  const UseDevice device(communicator->device);
  if (communicator->comm != nullptr) {
    // Others may still read what this rank sent: it goes when all are done, but
    // does not wait long for one that is gone.
    constexpr std::chrono::seconds kMost{5};
    const Wait wait(kMost);
    ncclResult_t result = ::ncclCommFinalize(communicator->comm);
    while (result == ncclInProgress && !wait.is_over()) {
      wait.pause();
      result = ask(*communicator);
    }
    if (result == ncclSuccess) {
      ::ncclCommDestroy(communicator->comm);
    } else {
      ::ncclCommAbort(communicator->comm);
    }
  }
  if (communicator->done != nullptr) {
    ::cudaEventDestroy(communicator->done);
  }
  delete communicator;
}

// Fills in a communicator that leave() can take in any case.
const char* connect(Communicator& communicator, const void* id) {
  const UseDevice device(communicator.device);
  if (device.error() != cudaSuccess) {
    return cuda_failure(communicator, device.error());
  }
  const cudaError_t error =
      ::cudaEventCreateWithFlags(&communicator.done, cudaEventDisableTiming);
  if (error != cudaSuccess) {
    return cuda_failure(communicator, error);
  }
  ncclUniqueId unique;
  std::memcpy(&unique, id, sizeof unique);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = ::ncclCommInitRankConfig(
      &communicator.comm,
      communicator.size,
      unique,
      communicator.rank,
      &config);
  if (communicator.comm == nullptr && result != ncclSuccess) {
    return failure(
        std::string(::ncclGetErrorString(result)) + ": " +
        ::ncclGetLastError(nullptr));
  }
  return settle(communicator, result);
}

const char* join(
    const void* id,
    const Module::Place* place,
    Communicator** made) {
  auto* communicator = new Communicator;
  communicator->rank = place->rank;
  communicator->size = place->size;
  communicator->device = place->device;
  communicator->timeout = std::chrono::duration<double>(place->seconds);
  const char* const error = connect(*communicator, id);
  if (error != nullptr) {
    leave(communicator);
    communicator = nullptr;
  }
  *made = communicator;
  return error;
}

const char* exchange(
    Communicator* communicator,
    const Message* messages,
    int64_t count,
    void* stream) {
  auto* const queue = static_cast<cudaStream_t>(stream);
  return as_group(*communicator, [&] {
    ncclResult_t result = ncclSuccess;
    for (int64_t i = 0; i < count && !is_failed(result); ++i) {
      const Message& one = messages[i];
      if (one.send_bytes > 0) {
        result = ::ncclSend(
            one.send,
            static_cast<size_t>(one.send_bytes),
            ncclInt8,
            one.peer,
            communicator->comm,
            queue);
      }
      if (one.receive_bytes > 0 && !is_failed(result)) {
        result = ::ncclRecv(
            one.receive,
            static_cast<size_t>(one.receive_bytes),
            ncclInt8,
            one.peer,
            communicator->comm,
            queue);
      }
    }
    return result;
  });
}

bool are_even(const int64_t* bounds, int size) {
  for (int rank = 1; rank < size; ++rank) {
    if (bounds[rank + 1] - bounds[rank] != bounds[1] - bounds[0]) {
      return false;
    }
  }
  return bounds[1] > bounds[0];
}

const char* gather(
    Communicator* communicator,
    void* data,
    const int64_t* bounds,
    void* stream) {
  auto* const queue = static_cast<cudaStream_t>(stream);
  auto* const bytes = static_cast<std::byte*>(data);
  return as_group(*communicator, [&] {
    if (are_even(bounds, communicator->size)) { // in place, as NCCL knows it
      return ::ncclAllGather(
          bytes + bounds[communicator->rank],
          bytes + bounds[0],
          static_cast<size_t>(bounds[1] - bounds[0]),
          ncclInt8,
          communicator->comm,
          queue);
    }
    ncclResult_t result = ncclSuccess;
    for (int root = 0; root < communicator->size && !is_failed(result);
         ++root) {
      const int64_t length = bounds[root + 1] - bounds[root];
      if (length > 0) {
        std::byte* const part = bytes + bounds[root];
        result = ::ncclBroadcast(
            part,
            part,
            static_cast<size_t>(length),
            ncclInt8,
            root,
            communicator->comm,
            queue);
      }
    }
    return result;
  });
}

const char* broadcast(
    Communicator* communicator,
    void* data,
    int64_t bytes,
    int root,
    void* stream) {
  return as_group(*communicator, [&] {
    return bytes == 0 ? ncclSuccess
                      : ::ncclBroadcast(
                            data,
                            data,
                            static_cast<size_t>(bytes),
                            ncclInt8,
                            root,
                            communicator->comm,
                            static_cast<cudaStream_t>(stream));
  });
}

const char* finish(Communicator* communicator, void* stream) {
  if (communicator->comm == nullptr) {
    return failure("the communicator has failed before");
  }
  const UseDevice device(communicator->device);
  cudaError_t error = device.error();
  if (error == cudaSuccess) {
    error = ::cudaEventRecord(
        communicator->done, static_cast<cudaStream_t>(stream));
  }
  const Wait wait(communicator->timeout);
  while (error == cudaSuccess) {
    error = ::cudaEventQuery(communicator->done);
    if (error != cudaErrorNotReady) {
      break;
    }
    ::cudaGetLastError(); // "not ready" is no error
    const ncclResult_t state = ask(*communicator);
    if (is_failed(state)) {
      return nccl_failure(*communicator, state);
    }
    if (wait.is_over()) {
      return abort_with(*communicator, wait.text());
    }
    wait.pause();
    error = cudaSuccess;
  }
  return error == cudaSuccess ? nullptr : cuda_failure(*communicator, error);
}

constexpr Module kModule = {
    kModuleVersion,
    check,
    make_id,
    join,
    leave,
    exchange,
    gather,
    broadcast,
    finish,
};

} // namespace
} // namespace deepspeed::cuda

extern "C" __attribute__((visibility("default"))) const deepspeed::cuda::Module*
deepspeed_cuda_module() {
  return &deepspeed::cuda::kModule;
}
