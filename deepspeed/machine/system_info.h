// What this machine has, and how much of it this process may use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deepspeed::machine {

std::string cpu_model(); // "Intel(R) Xeon(R) ..."

// Cores this process may use: its affinity mask, cut to the quota of its cgroup
// (cpu.max, rounded up). At least 1.
int usable_cores();

// Those of avx2 fma f16c avx512f avx512bw avx512_bf16 avx512_vnni amx_tile
// amx_bf16 that processor and kernel offer, in this order.
std::vector<std::string> instruction_sets();

struct MemoryInfo {
  uint64_t total = 0; // bytes, cut to the limit of the cgroup (memory.max)
  uint64_t available = 0; // without swapping, cut likewise
};
MemoryInfo memory_info();

// What this process has in memory now (VmRSS), in bytes.
uint64_t resident_memory();
// The most memory this process has had (VmHWM), in bytes.
uint64_t peak_memory();

struct DiskInfo {
  uint64_t total = 0; // bytes
  uint64_t available = 0; // for an ordinary user
};
// Of the file system that holds `path`, or the nearest folder above that
// exists. Zeros if it cannot be told.
DiskInfo disk_info(const std::string& path);

std::string host_name();

// The limit of a cgroup file's text ("max" or "150000 100000"): cores of
// cpu.max, 0 for none. For tests.
double parse_cpu_max(const std::string& text);

} // namespace deepspeed::machine
