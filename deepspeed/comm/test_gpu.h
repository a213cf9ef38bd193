// GPUs, for the tests that need some. CI has none: such tests skip themselves
// there and run by hand on a machine with GPUs.
#pragma once

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace deepspeed::comm {

// The GPU part of libtorch, where it can be loaded: in the ranks, which are
// forked before.
inline bool load_cuda() {
  return ::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr;
}

// How many GPUs libtorch can use. Asked in a process of its own: one that has
// touched a GPU cannot fork.
inline int gpu_count() {
  const pid_t pid = ::fork();
  if (pid == 0) {
    constexpr auto kCuda = c10::DeviceType::CUDA;
    const bool known = load_cuda() && c10::impl::hasDeviceGuardImpl(kCuda);
    ::_exit(known ? c10::impl::getDeviceGuardImpl(kCuda)->deviceCount() : 0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

} // namespace deepspeed::comm
