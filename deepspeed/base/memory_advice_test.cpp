// What the system is told about memory.
#include "deepspeed/base/memory_advice.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace deepspeed::base {
namespace {

// The flags of the mapping that holds `address`, of /proc/self/smaps.
std::string flags_of(const void* address) {
  std::ifstream file("/proc/self/smaps");
  const auto at = reinterpret_cast<unsigned long>(address);
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2) {
      inside = begin <= at && at < end;
    } else if (inside && line.rfind("VmFlags:", 0) == 0) {
      return line + " ";
    }
  }
  return "";
}

TEST(HugePages, WholeOnesInsideAreAdvisedAndContentsStay) {
  constexpr size_t kBytes = 9 << 20;
  void* const map = ::mmap(
      nullptr,
      kBytes,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS,
      -1,
      0);
  ASSERT_NE(map, MAP_FAILED);
  char* const data = static_cast<char*>(map) + 64;
  std::memset(data, 7, kBytes - 64);
  advise_huge_pages(data, kBytes - 64);
  EXPECT_NE(flags_of(data + kBytes / 2).find(" hg "), std::string::npos);
  for (size_t i = 0; i < kBytes - 64; i += 4095) {
    ASSERT_EQ(data[i], 7) << i;
  }
  ::munmap(map, kBytes);
}

TEST(HugePages, TooLittleMemoryIsLeftAlone) {
  int small[16] = {};
  advise_huge_pages(small, sizeof(small));
  advise_huge_pages(nullptr, 0);
}

// Sanitizers bring an allocator of their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Pages that the kernel has given to this process so far.
int64_t page_faults() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

TEST(KeepFreedMemory, TheNextStepGetsTheSamePages) {
  keep_freed_memory();
  const auto step = [] {
    constexpr size_t kBytes = 24 << 20;
    std::vector<std::unique_ptr<char[]>> blocks;
    for (int i = 0; i < 3; ++i) {
      blocks.push_back(std::make_unique_for_overwrite<char[]>(kBytes));
      std::memset(blocks.back().get(), i, kBytes);
    }
  };
  step();
  const int64_t before = page_faults();
  step();
  // 72 MiB would be 18,432 of them.
  EXPECT_LT(page_faults() - before, 2000);
}

TEST(KeepFreedMemory, TheHeapGetsHugePages) {
  keep_freed_memory();
  // Beyond what lies free in a heap that was there before.
  std::vector<std::unique_ptr<char[]>> blocks;
  int huge = 0;
  for (int i = 0; i < 8; ++i) {
    constexpr size_t kBytes = 24 << 20;
    blocks.push_back(std::make_unique_for_overwrite<char[]>(kBytes));
    const std::string flags = flags_of(blocks.back().get() + kBytes / 2);
    huge += flags.find(" hg ") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(huge, 5);
}
#endif

} // namespace
} // namespace deepspeed::base
