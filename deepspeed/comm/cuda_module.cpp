// The shared object with NCCL, where a program wants it.
#include "deepspeed/comm/cuda_module.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <filesystem>
#include <string>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

constexpr const char* kWithout =
    "; without NCCL, gradients of a GPU are summed in host memory";

[[noreturn]] void refuse(const std::string& what, const std::string& hint) {
  throw base::Error(
      base::ExitCode::config,
      "NCCL is asked for, but " + what,
      "DS_COMM=nccl or dist_backend",
      hint + kWithout);
}

std::string last_error() {
  const char* const text = ::dlerror();
  return text == nullptr ? "no reason given" : text;
}

// Its symbols and those of what it brings, such as NCCL, become the program's.
void load_libtorch_cuda() {
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    refuse(
        "libtorch's GPU part cannot be loaded: " + last_error(),
        "install libtorch with its CUDA libraries (pip install torch)");
  }
  constexpr auto kCuda = c10::DeviceType::CUDA;
  if (!c10::impl::hasDeviceGuardImpl(kCuda) ||
      c10::impl::getDeviceGuardImpl(kCuda)->deviceCount() == 0) {
    refuse(
        "libtorch finds no GPU",
        "`nvidia-smi` lists the GPUs of a working driver");
  }
}

void* open_module() {
  std::error_code error;
  const std::filesystem::path program =
      std::filesystem::read_symlink("/proc/self/exe", error);
  std::filesystem::path file = cuda::kModuleFile;
  if (!error) {
    const std::filesystem::path beside =
        program.parent_path().parent_path() / "lib" / file;
    if (std::filesystem::exists(beside, error)) {
      file = beside;
    }
  }
  void* const module = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    refuse(
        std::string(cuda::kModuleFile) + " cannot be loaded: " + last_error(),
        "cmake says whether it is built (tools/setup.sh --with-cuda); it takes "
        "NCCL from libtorch, as the wheel torch brings it");
  }
  return module;
}

const cuda::Module& load_checked() {
  load_libtorch_cuda();
  using Entry = decltype(&deepspeed_cuda_module);
  const auto entry =
      reinterpret_cast<Entry>(::dlsym(open_module(), cuda::kModuleEntry));
  const cuda::Module* const module = entry == nullptr ? nullptr : entry();
  if (module == nullptr || module->version != cuda::kModuleVersion) {
    refuse(
        std::string(cuda::kModuleFile) + " is of version " +
            std::to_string(module == nullptr ? 0 : module->version) +
            ", this program needs " + std::to_string(cuda::kModuleVersion),
        "install the program and its lib/ together");
  }
  if (const char* const error = module->check()) {
    refuse(error, "install the NCCL that libtorch names");
  }
  return *module;
}

} // namespace

const cuda::Module& load_cuda_module() {
  static const cuda::Module& module = load_checked();
  return module;
}

} // namespace deepspeed::comm
