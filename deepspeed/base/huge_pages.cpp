// Larger pages for memory that a step walks through.
#include "deepspeed/base/huge_pages.h"

#include <sys/mman.h>

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

} // namespace deepspeed::base
