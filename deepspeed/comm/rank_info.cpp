// The variables by which launchers tell a process its rank.
#include "deepspeed/comm/rank_info.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

[[noreturn]] void fail(const std::string& what, const std::string& hint) {
  throw base::Error(base::ExitCode::config, what, "environment", hint);
}

constexpr const char* kLauncherHint =
    "start the program with its launcher, or unset these variables to run one "
    "rank";

// Reads variables; one that is empty counts as not set.
class Variables {
 public:
  explicit Variables(const Environment& environment)
      : environment_(environment) {}

  std::string text(const std::string& name) const {
    return environment_(name).value_or("");
  }
  bool has(const std::string& name) const {
    return !text(name).empty();
  }
  std::string required_text(const std::string& name, const std::string& other)
      const {
    const std::string value = text(name);
    if (value.empty()) {
      fail(other + " is set, but " + name + " is not", kLauncherHint);
    }
    return value;
  }
  std::optional<int> number(const std::string& name) const {
    const std::string value = text(name);
    if (value.empty()) {
      return std::nullopt;
    }
    int result = 0;
    const char* end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, result);
    if (error != std::errc() || stop != end || result < 0) {
      fail(name + "=" + value + " is not a number from 0 on", kLauncherHint);
    }
    return result;
  }
  int required(const std::string& name, const std::string& other) const {
    required_text(name, other);
    return *number(name);
  }

 private:
  const Environment& environment_;
};

// The names under which a launcher tells the four numbers.
struct Names {
  std::string rank;
  std::string world_size;
  std::string local_rank;
  std::string local_world_size;
};

std::string setting(const std::string& name, int value) {
  return name + "=" + std::to_string(value);
}

void check_below(
    const std::string& name,
    int value,
    const std::string& limit_name,
    int limit) {
  if (value >= limit) {
    fail(
        setting(name, value) + " does not fit " + setting(limit_name, limit),
        "it must be smaller: ranks count from 0");
  }
}

void check_counts(const RankInfo& info, const Names& names) {
  check_below(names.rank, info.rank, names.world_size, info.world_size);
  check_below(
      names.local_rank,
      info.local_rank,
      names.local_world_size,
      info.local_world_size);
  if (info.local_world_size > info.world_size) {
    fail(
        setting(names.local_world_size, info.local_world_size) +
            " is more than " + setting(names.world_size, info.world_size),
        "the ranks of one host are among all ranks");
  }
  if (info.local_rank > info.rank) {
    fail(
        setting(names.local_rank, info.local_rank) + " is more than " +
            setting(names.rank, info.rank),
        "as many ranks of this host come before this one");
  }
  if (info.is_one_host() && info.local_rank != info.rank) {
    fail(
        setting(names.local_rank, info.local_rank) + " contradicts " +
            setting(names.rank, info.rank) + ": all ranks are on this host",
        kLauncherHint);
  }
}

// FNV-1a: spread well, and the same on every machine.
uint32_t hash_of(const std::string& text) {
  uint32_t hash = 2166136261u;
  for (const unsigned char byte : text) {
    hash = (hash ^ byte) * 16777619u;
  }
  return hash;
}

bool names_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

// Address and port, where more than one rank has to meet. `first_host` is the
// host of rank 0 as far as the launcher tells it.
void read_master(
    const Variables& variables,
    const std::string& first_host,
    RankInfo& info) {
  if (info.world_size == 1) {
    return;
  }
  info.master_addr = variables.text("MASTER_ADDR");
  if (info.master_addr.empty()) {
    info.master_addr = info.is_one_host() ? "127.0.0.1" : first_host;
  }
  if (info.master_addr.empty()) {
    fail(
        "MASTER_ADDR is not set, and there is more than one host",
        "set it to the name or the address of the host of rank 0");
  }
  constexpr int kFirstPort = 20000;
  constexpr int kPorts = 12000; // below those that systems hand out themselves
  const std::optional<int> port = variables.number("MASTER_PORT");
  if (!port && info.job_id.empty()) {
    fail(
        "MASTER_PORT is not set",
        "set it to a free port of " + info.master_addr +
            ", the same on all ranks");
  }
  info.master_port = port.value_or(
      kFirstPort + static_cast<int>(hash_of(info.job_id) % kPorts));
  if (info.master_port < 1 || info.master_port > 65535) {
    fail(
        setting("MASTER_PORT", info.master_port) + " is not a port",
        "ports are 1 to 65535");
  }
}

// The job, and which of its starts.
std::string start_of_run(
    const Variables& variables,
    const char* job,
    const char* restarts) {
  const std::string id = variables.text(job);
  const int count = variables.number(restarts).value_or(0);
  return id.empty() || count == 0 ? id
                                  : id + " restart " + std::to_string(count);
}

RankInfo from_deepspeed(const Variables& variables) {
  Names names{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
  RankInfo info;
  info.rank = variables.required("RANK", "WORLD_SIZE");
  info.world_size = variables.required("WORLD_SIZE", "RANK");
  std::optional<int> local_size = variables.number("LOCAL_WORLD_SIZE");
  const std::optional<int> deepspeed_size = variables.number("LOCAL_SIZE");
  if (local_size && deepspeed_size && *local_size != *deepspeed_size) {
    fail(
        setting("LOCAL_WORLD_SIZE", *local_size) + " contradicts " +
            setting("LOCAL_SIZE", *deepspeed_size),
        "set only one of them");
  }
  if (!local_size && deepspeed_size) {
    names.local_world_size = "LOCAL_SIZE";
    local_size = deepspeed_size;
  }
  const bool alone =
      names_loopback(variables.text("MASTER_ADDR")) || info.world_size == 1;
  info.local_world_size = local_size.value_or(alone ? info.world_size : 1);
  info.local_rank = variables.number("LOCAL_RANK")
                        .value_or(info.is_one_host() ? info.rank : 0);
  check_counts(info, names);
  info.job_id = start_of_run(variables, "DS_JOB_ID", "DS_RESTART_COUNT");
  if (info.job_id.empty()) {
    info.job_id = start_of_run(
        variables, "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT");
  }
  info.has_launcher_store =
      variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (info.world_size > 1) {
    variables.required_text("MASTER_ADDR", "WORLD_SIZE");
    variables.required_text("MASTER_PORT", "WORLD_SIZE");
  }
  read_master(variables, "", info);
  return info;
}

RankInfo from_mpi(
    const Variables& variables,
    const Names& names,
    const std::string& job_id) {
  RankInfo info;
  info.rank = variables.required(names.rank, names.world_size);
  info.world_size = variables.required(names.world_size, names.rank);
  info.local_rank = variables.required(names.local_rank, names.rank);
  info.local_world_size =
      variables.required(names.local_world_size, names.rank);
  check_counts(info, names);
  info.job_id = job_id;
  read_master(variables, "", info);
  return info;
}

// Entry `node` of a list like "2(x3),1": 2, 2, 2, 1.
int tasks_of_node(const std::string& list, int node) {
  int first = 0; // the node at which the current entry starts
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    int tasks = 0;
    int repeat = 1;
    auto result = std::from_chars(at, end, tasks);
    bool good = result.ec == std::errc();
    if (good && end - result.ptr > 3 && result.ptr[0] == '(') {
      result = std::from_chars(result.ptr + 2, end, repeat);
      good = result.ec == std::errc() && result.ptr < end && *result.ptr == ')';
      ++result.ptr;
    }
    if (!good || (result.ptr < end && *result.ptr != ',')) {
      break;
    }
    if (node < first + repeat) {
      return tasks;
    }
    first += repeat;
    at = result.ptr + 1;
  }
  fail(
      "SLURM_STEP_TASKS_PER_NODE=" + list + " says nothing about " +
          setting("SLURM_NODEID", node),
      kLauncherHint);
}

// "node[01-03,7]-ib,other" gives "node01-ib".
std::string first_of_node_list(const std::string& list) {
  std::string host;
  bool skipping = false; // the rest of a bracket
  bool inside = false;
  for (const char c : list) {
    if (c == '[' || c == ']') {
      inside = c == '[';
      skipping = false;
    } else if (inside && (c == '-' || c == ',')) {
      skipping = true;
    } else if (!inside && c == ',') {
      break;
    } else if (!skipping) {
      host += c;
    }
  }
  return host;
}

RankInfo from_slurm(const Variables& variables) {
  const Names names{
      "SLURM_PROCID",
      "SLURM_STEP_NUM_TASKS",
      "SLURM_LOCALID",
      "SLURM_STEP_TASKS_PER_NODE"};
  RankInfo info;
  info.rank = *variables.number(names.rank);
  info.world_size = *variables.number(names.world_size);
  info.local_rank = variables.required(names.local_rank, names.rank);
  info.local_world_size = tasks_of_node(
      variables.required_text(names.local_world_size, names.rank),
      variables.required("SLURM_NODEID", names.rank));
  check_counts(info, names);
  if (variables.has("SLURM_JOB_ID")) {
    info.job_id = "slurm-" + variables.text("SLURM_JOB_ID") + "." +
        variables.text("SLURM_STEP_ID");
  }
  read_master(
      variables,
      first_of_node_list(variables.text("SLURM_STEP_NODELIST")),
      info);
  return info;
}

} // namespace

RankInfo rank_from_environment(const Environment& environment) {
  const Variables variables(environment);
  if (variables.has("RANK") || variables.has("WORLD_SIZE")) {
    return from_deepspeed(variables);
  }
  const Names open_mpi{
      "OMPI_COMM_WORLD_RANK",
      "OMPI_COMM_WORLD_SIZE",
      "OMPI_COMM_WORLD_LOCAL_RANK",
      "OMPI_COMM_WORLD_LOCAL_SIZE"};
  if (variables.has(open_mpi.rank) || variables.has(open_mpi.world_size)) {
    return from_mpi(variables, open_mpi, variables.text("PMIX_NAMESPACE"));
  }
  const Names mpich{
      "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
  if (variables.has(mpich.rank) || variables.has(mpich.world_size)) {
    return from_mpi(variables, mpich, "");
  }
  // A batch script has SLURM_PROCID too; only what srun starts is a rank.
  if (variables.has("SLURM_PROCID") && variables.has("SLURM_STEP_NUM_TASKS")) {
    return from_slurm(variables);
  }
  return RankInfo{};
}

RankInfo rank_from_environment() {
  return rank_from_environment(
      [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        return value == nullptr ? std::nullopt
                                : std::optional<std::string>(value);
      });
}

} // namespace deepspeed::comm
