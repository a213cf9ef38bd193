// What this machine has, and how much of it this process may use.
#include "deepspeed/machine/system_info.h"

#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

namespace deepspeed::machine {
namespace {

// The first line of a small file; "" if there is none.
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  const size_t end = text.find_last_not_of(" \t\n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// The value of the first line "KEY : value" or "KEY: value" of a file of /proc.
std::string proc_value(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon != std::string::npos && trimmed(line.substr(0, colon)) == key) {
      return trimmed(line.substr(colon + 1));
    }
  }
  return "";
}

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto result =
      std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr != text.data()
      ? std::optional(value)
      : std::nullopt;
}

// "16318480 kB" in bytes, 0 if there is no number.
uint64_t kilobytes(const std::string& text) {
  return number(text).value_or(0) * 1024;
}

// The folders of this process's cgroup, from its own one up to the root: a
// limit of any of them holds. `controller` picks the hierarchy of version 1;
// version 2 has one for all.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) { // "4:memory:/path"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string names = line.substr(first + 1, second - first - 1);
    std::string root = "/sys/fs/cgroup";
    if (("," + names + ",").find("," + controller + ",") != std::string::npos) {
      root += "/" + controller;
    } else if (!names.empty()) {
      continue;
    }
    std::string path = line.substr(second + 1);
    while (path.size() > 1 && path[0] == '/') {
      folders.push_back(root + path);
      path = path.substr(0, path.rfind('/'));
    }
    folders.push_back(root);
  }
  return folders;
}

double cgroup_cores() {
  double least = std::numeric_limits<double>::infinity();
  for (const std::string& folder : cgroup_folders("cpu")) {
    const std::string v2 = first_line(folder + "/cpu.max");
    const std::string v1 = first_line(folder + "/cpu.cfs_quota_us") + " " +
        first_line(folder + "/cpu.cfs_period_us");
    for (const std::string& text : {v2, v1}) {
      const double cores = parse_cpu_max(text);
      least = cores > 0 ? std::min(least, cores) : least;
    }
  }
  return least;
}

struct CgroupMemory {
  uint64_t limit = std::numeric_limits<uint64_t>::max();
  uint64_t left = std::numeric_limits<uint64_t>::max();
};

// File pages that the kernel can drop: they count as usage of a cgroup.
uint64_t droppable_pages(const std::string& folder) {
  std::ifstream file(folder + "/memory.stat");
  for (std::string line; std::getline(file, line);) {
    constexpr std::string_view kKey = "inactive_file ";
    if (line.starts_with(kKey)) {
      return number(line.substr(kKey.size())).value_or(0);
    }
  }
  return 0;
}

CgroupMemory cgroup_memory() {
  CgroupMemory least;
  for (const std::string& folder : cgroup_folders("memory")) {
    const auto take = [&](const char* limit_file, const char* usage_file) {
      const auto limit = number(first_line(folder + limit_file));
      if (!limit) { // "max" is not a number
        return;
      }
      const uint64_t usage =
          number(first_line(folder + usage_file)).value_or(0);
      const uint64_t used = usage - std::min(usage, droppable_pages(folder));
      least.limit = std::min(least.limit, *limit);
      least.left = std::min(least.left, *limit - std::min(*limit, used));
    };
    take("/memory.max", "/memory.current");
    take("/memory.limit_in_bytes", "/memory.usage_in_bytes");
  }
  return least;
}

} // namespace

std::string cpu_model() {
  const std::string name = proc_value("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown" : name;
}

double parse_cpu_max(const std::string& text) {
  std::istringstream words(text);
  double quota = 0;
  double period = 0;
  return words >> quota >> period && quota > 0 && period > 0 ? quota / period
                                                             : 0;
}

int usable_cores() {
  // More than 1024 processors need a larger mask than cpu_set_t.
  constexpr size_t kMostProcessors = 8192;
  std::array<unsigned long, kMostProcessors / 64> mask{};
  auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
  int cores = 0;
  if (::sched_getaffinity(0, sizeof(mask), set) == 0) {
    cores = CPU_COUNT_S(sizeof(mask), set);
  } else {
    cores = static_cast<int>(std::thread::hardware_concurrency());
  }
  const double quota = std::ceil(cgroup_cores());
  return std::max(1, quota < cores ? static_cast<int>(quota) : cores);
}

std::vector<std::string> instruction_sets() {
  std::istringstream words(proc_value("/proc/cpuinfo", "flags"));
  std::vector<std::string> flags;
  for (std::string word; words >> word;) {
    flags.push_back(word);
  }
  std::vector<std::string> found;
  for (const char* name :
       {"avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512_bf16",
        "avx512_vnni",
        "amx_tile",
        "amx_bf16"}) {
    if (std::find(flags.begin(), flags.end(), name) != flags.end()) {
      found.emplace_back(name);
    }
  }
  return found;
}

MemoryInfo memory_info() {
  const CgroupMemory group = cgroup_memory();
  MemoryInfo info;
  info.total =
      std::min(kilobytes(proc_value("/proc/meminfo", "MemTotal")), group.limit);
  info.available = std::min(
      kilobytes(proc_value("/proc/meminfo", "MemAvailable")), group.left);
  return info;
}

uint64_t resident_memory() {
  return kilobytes(proc_value("/proc/self/status", "VmRSS"));
}

uint64_t peak_memory() {
  return kilobytes(proc_value("/proc/self/status", "VmHWM"));
}

DiskInfo disk_info(const std::string& path) {
  std::error_code ignored;
  std::filesystem::path place = std::filesystem::absolute(path, ignored);
  while (!std::filesystem::exists(place, ignored) &&
         place.has_relative_path()) {
    place = place.parent_path();
  }
  struct statvfs stats {};
  DiskInfo info;
  if (::statvfs(place.c_str(), &stats) == 0) {
    info.total = static_cast<uint64_t>(stats.f_blocks) * stats.f_frsize;
    info.available = static_cast<uint64_t>(stats.f_bavail) * stats.f_frsize;
  }
  return info;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name.data();
}

} // namespace deepspeed::machine
