// What the machine says about itself.
#include "deepspeed/machine/system_info.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <thread>

namespace deepspeed::machine {
namespace {

TEST(SystemInfo, CpuQuota) {
  EXPECT_EQ(parse_cpu_max("max 100000"), 0);
  EXPECT_EQ(parse_cpu_max("150000 100000"), 1.5);
  EXPECT_EQ(parse_cpu_max("-1 100000"), 0); // cgroup 1: no limit
  EXPECT_EQ(parse_cpu_max(""), 0);
  EXPECT_EQ(parse_cpu_max("garbage"), 0);
}

TEST(SystemInfo, CoresFollowTheAffinityMask) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(
      usable_cores(), static_cast<int>(std::thread::hardware_concurrency()));
  int bound = 0;
  std::thread([&] { // the mask belongs to a thread
    cpu_set_t mask;
    sched_getaffinity(0, sizeof(mask), &mask);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) {
      ++first;
    }
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    sched_setaffinity(0, sizeof(mask), &mask);
    bound = usable_cores();
  })
      .join();
  EXPECT_EQ(bound, 1);
}

TEST(SystemInfo, InstructionSetsAgreeWithTheCompiler) {
  const std::vector<std::string> sets = instruction_sets();
  const auto has = [&](const char* name) {
    return std::find(sets.begin(), sets.end(), name) != sets.end();
  };
#if defined(__x86_64__)
  EXPECT_EQ(has("avx2"), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(has("avx512f"), __builtin_cpu_supports("avx512f") != 0);
#endif
  EXPECT_FALSE(cpu_model().empty());
}

TEST(SystemInfo, PeakMemoryGrows) {
  const MemoryInfo memory = memory_info();
  EXPECT_GT(memory.available, 0u);
  EXPECT_LE(memory.available, memory.total);
  const uint64_t before = peak_memory();
  EXPECT_GT(before, 0u);
  EXPECT_LT(before, memory.total);
  std::vector<char> block(64 << 20, 1);
  EXPECT_GE(peak_memory() + block[1234] - 1, before + (32 << 20));
}

TEST(SystemInfo, DiskOfAFolderThatIsNotThereYet) {
  const std::string folder = std::filesystem::temp_directory_path();
  const DiskInfo there = disk_info(folder);
  const DiskInfo later = disk_info(folder + "/not/there/yet");
  EXPECT_GT(there.total, 0u);
  EXPECT_LE(there.available, there.total);
  EXPECT_EQ(later.total, there.total);
  EXPECT_GT(disk_info("relative/name").total, 0u);
}

TEST(SystemInfo, HostName) {
  EXPECT_FALSE(host_name().empty());
}

} // namespace
} // namespace deepspeed::machine
