// A growing, aligned buffer for each thread.
#include "deepspeed/kernels/scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace deepspeed::kernels {
namespace {

constexpr size_t kAlignment = 64;

struct Free {
  void operator()(float* p) const {
    std::free(p);
  }
};

} // namespace

float* scratch_floats(size_t count) {
  thread_local std::unique_ptr<float, Free> buffer;
  thread_local size_t capacity = 0;
  if (count > capacity) {
    const size_t bytes =
        (count * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
    buffer.reset();
    capacity = 0;
    buffer.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    if (buffer == nullptr) {
      throw std::bad_alloc();
    }
    capacity = count;
  }
  return buffer.get();
}

} // namespace deepspeed::kernels
