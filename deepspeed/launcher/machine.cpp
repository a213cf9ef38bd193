// Cores, NUMA nodes and GPUs of this host.
#include "deepspeed/launcher/machine.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/resource_filter.h"

namespace deepspeed::launcher {

namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<int> usable_cores() {
  // Larger than any machine; sched_getaffinity needs room for all of them.
  constexpr int kMost = 8192;
  cpu_set_t* set = CPU_ALLOC(kMost);
  const size_t size = CPU_ALLOC_SIZE(kMost);
  CPU_ZERO_S(size, set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, size, set) == 0) {
    for (int core = 0; core < kMost; ++core) {
      if (CPU_ISSET_S(core, size, set)) {
        cores.push_back(core);
      }
    }
  }
  CPU_FREE(set);
  return cores.empty() ? std::vector<int>{0} : cores;
}

// A list of the kernel, "0-3,8"; {} if it is empty or not there.
std::vector<int> read_list(const std::string& path) {
  const std::string line = first_line(path);
  return line.empty() ? std::vector<int>() : parse_number_list(line, path);
}

std::vector<int> common(
    const std::vector<int>& one,
    const std::vector<int>& other) {
  std::vector<int> both;
  std::set_intersection(
      one.begin(),
      one.end(),
      other.begin(),
      other.end(),
      std::back_inserter(both));
  return both;
}

std::vector<NumaNode> find_numa_nodes(const std::vector<int>& usable) {
  std::vector<NumaNode> nodes;
  const std::string root = "/sys/devices/system/node/";
  for (const int number : read_list(root + "online")) {
    const std::string path =
        root + "node" + std::to_string(number) + "/cpulist";
    NumaNode node{number, common(read_list(path), usable)};
    if (!node.cores.empty()) {
      nodes.push_back(std::move(node));
    }
  }
  if (nodes.empty()) {
    nodes.push_back({0, usable});
  }
  return nodes;
}

std::vector<int> find_first_threads(const std::vector<int>& usable) {
  std::vector<int> firsts;
  for (const int core : usable) {
    const std::vector<int> siblings = common(
        read_list(
            "/sys/devices/system/cpu/cpu" + std::to_string(core) +
            "/topology/thread_siblings_list"),
        usable);
    if (siblings.empty() || siblings.front() == core) {
      firsts.push_back(core);
    }
  }
  return firsts;
}

// Through the driver's own library, which a GPU machine has and this program is
// not linked to. nvidia-ml's calls return 0 for success.
int count_gpus() {
  const char* accelerator = std::getenv("DS_ACCELERATOR");
  std::error_code ignored;
  if ((accelerator != nullptr && std::string(accelerator) == "cpu") ||
      !fs::exists("/dev/nvidiactl", ignored)) {
    return 0;
  }
  void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return 0;
  }
  using Start = int (*)();
  using Count = int (*)(unsigned int*);
  const auto start = reinterpret_cast<Start>(::dlsym(library, "nvmlInit_v2"));
  const auto count =
      reinterpret_cast<Count>(::dlsym(library, "nvmlDeviceGetCount_v2"));
  unsigned int gpus = 0;
  if (start == nullptr || count == nullptr || start() != 0 ||
      count(&gpus) != 0) {
    return 0;
  }
  return static_cast<int>(gpus);
}

std::vector<int> cores_to_bind(
    const Machine& machine,
    const std::string& list) {
  if (list.empty()) {
    return machine.first_threads;
  }
  const std::vector<int> cores = parse_number_list(list, "--bind_core_list");
  for (size_t i = 1; i < cores.size(); ++i) {
    if (cores[i] <= cores[i - 1]) {
      throw Error(
          ExitCode::usage,
          "core " + std::to_string(cores[i]) + " stands behind core " +
              std::to_string(cores[i - 1]) + " in '" + list + "'",
          "--bind_core_list",
          "list each core once, in rising order");
    }
  }
  for (const int core : cores) {
    if (!std::binary_search(machine.cores.begin(), machine.cores.end(), core)) {
      throw Error(
          ExitCode::config,
          "core " + std::to_string(core) + " cannot be used here",
          "--bind_core_list " + list,
          "see nproc and taskset -p $$ for the cores that can");
    }
  }
  return cores;
}

} // namespace

Machine this_machine() {
  Machine machine;
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  machine.host = name;
  machine.cores = usable_cores();
  machine.first_threads = find_first_threads(machine.cores);
  machine.numa_nodes = find_numa_nodes(machine.cores);
  machine.gpus = count_gpus();
  return machine;
}

std::vector<CoreShare> share_cores(
    const Machine& machine,
    int ranks,
    bool bind,
    const std::string& list) {
  if (!bind) {
    const int threads =
        std::max(1, static_cast<int>(machine.cores.size()) / ranks);
    return std::vector<CoreShare>(
        static_cast<size_t>(ranks), CoreShare{.threads = threads});
  }
  const std::vector<int> cores = cores_to_bind(machine, list);
  const auto each = static_cast<std::ptrdiff_t>(cores.size()) / ranks;
  if (each < 1) {
    throw Error(
        ExitCode::config,
        std::to_string(ranks) + " ranks cannot have a core each of " +
            std::to_string(cores.size()),
        "--bind_cores_to_rank",
        "start fewer ranks (--num_gpus), or do not bind");
  }
  std::vector<CoreShare> shares;
  for (auto first = cores.begin(); shares.size() < static_cast<size_t>(ranks);
       first += each) {
    CoreShare share{
        .cores = {first, first + each}, .threads = static_cast<int>(each)};
    for (const NumaNode& node : machine.numa_nodes) {
      if (machine.numa_nodes.size() > 1 &&
          common(share.cores, node.cores) == share.cores) {
        share.memory_node = node.number;
      }
    }
    shares.push_back(std::move(share));
  }
  return shares;
}

} // namespace deepspeed::launcher
