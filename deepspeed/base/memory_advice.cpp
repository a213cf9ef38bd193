// What the system and the C library are told about memory.
#include "deepspeed/base/memory_advice.h"

#include <malloc.h>
#include <sys/mman.h>

#include <climits>
#include <cstdint>

namespace deepspeed::base {

void advise_huge_pages(void* data, size_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + bytes) / kHugePage * kHugePage;
  if (begin < end) {
    // A kernel without huge pages refuses: then it is as it was.
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
}

void keep_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kLargestBlock = 32 << 20; // the most that glibc takes
  ::mallopt(M_MMAP_THRESHOLD, kLargestBlock);
  ::mallopt(M_TRIM_THRESHOLD, INT_MAX);
#endif
}

} // namespace deepspeed::base
