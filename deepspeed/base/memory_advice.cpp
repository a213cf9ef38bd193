// What the system and the C library are told about memory.
#include "deepspeed/base/memory_advice.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
#include <cstdlib>

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
  // Lets the heap grow once, by addresses: they cost nothing until they are
  // written to.
  constexpr int kHeap = 256 << 20;
  constexpr int kUsualGrowth = 128 << 10;
  ::mallopt(M_TOP_PAD, kHeap);
  char* const heap = static_cast<char*>(::sbrk(0));
  void* volatile block = std::malloc(kLargestBlock / 2); // not optimized away
  std::free(block);
  ::mallopt(M_TOP_PAD, kUsualGrowth);
  advise_huge_pages(heap, static_cast<char*>(::sbrk(0)) - heap);
#endif
}

} // namespace deepspeed::base
