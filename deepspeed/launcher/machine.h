// Cores, NUMA nodes and GPUs of this host.
#pragma once

#include <string>
#include <vector>

namespace deepspeed::launcher {

struct NumaNode {
  int number = 0;
  std::vector<int> cores; // rising; those that this process may use
};

struct Machine {
  std::string host; // its name
  std::vector<int> cores; // logical ones that this process may use, rising
  std::vector<int> first_threads; // of these, one for each physical core
  std::vector<NumaNode> numa_nodes; // those with cores in `cores`
  int gpus = 0;
};

// Reads /sys and asks the NVIDIA driver, if it is loaded. DS_ACCELERATOR=cpu
// counts no GPUs (the variable is DeepSpeed's).
Machine this_machine();

// Cores for one rank and what goes with them.
struct CoreShare {
  std::vector<int> cores; // to bind to; empty: not bound
  int memory_node = -1; // if all lie in one of several NUMA nodes
  int threads = 1; // OMP_NUM_THREADS
};

// The share of each of `ranks` ranks on this host. Without binding: an equal
// number of threads, at least one. With `bind`: consecutive cores of `list`
// ("1,3-5"; rising, no core twice) or, if that is empty, of all physical cores.
// Error(config) if there are fewer cores than ranks or a core may not be used;
// Error(usage) for a bad list.
std::vector<CoreShare> share_cores(
    const Machine& machine,
    int ranks,
    bool bind,
    const std::string& list);

} // namespace deepspeed::launcher
