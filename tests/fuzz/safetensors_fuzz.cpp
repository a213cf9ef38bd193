// libFuzzer target: safetensors files from memory.
#include <cstdint>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/safetensors.h"

using namespace deepspeed;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const formats::Safetensors file = formats::parse_safetensors(
        std::as_bytes(std::span(data, size)), nullptr, "fuzz");
    // Every tensor is sound, and all of its bytes can be read.
    size_t total = 0;
    for (const formats::NamedTensor& named : file.tensors) {
      if (!formats::tensor_fault(named.tensor).empty()) {
        __builtin_trap();
      }
      for (const std::byte byte : named.tensor.contiguous_bytes()) {
        total += std::to_integer<size_t>(byte);
      }
    }
    volatile size_t sink = total;
    (void)sink;
  } catch (const base::Error&) {
  }
  return 0;
}
