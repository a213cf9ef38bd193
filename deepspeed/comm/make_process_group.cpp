// The choice of the transport.
#include <cstdlib>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/version.h"
#include "deepspeed/comm/gloo_transport.h"
#include "deepspeed/comm/process_group.h"
#include "deepspeed/comm/rendezvous.h"
#include "deepspeed/comm/shared_memory_transport.h"

namespace deepspeed::comm {
namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::chrono::milliseconds timeout_of(const ProcessGroupOptions& options) {
  if (options.timeout.count() > 0) {
    return options.timeout;
  }
  const std::string text = variable("DEEPSPEED_TIMEOUT");
  if (text.empty()) {
    return std::chrono::minutes(10);
  }
  constexpr double kMostMinutes = 60 * 24 * 7;
  char* end = nullptr;
  const double minutes = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !(minutes > 0) || minutes > kMostMinutes) {
    throw base::Error(
        base::ExitCode::config,
        "DEEPSPEED_TIMEOUT=" + text + " is not a number of minutes",
        "environment",
        "between 0 and one week, such as 30 or 0.5");
  }
  return std::chrono::milliseconds(static_cast<int64_t>(minutes * 60'000) + 1);
}

std::string transport_name(const ProcessGroupOptions& options) {
  std::string name = options.transport;
  if (name.empty()) {
    name = variable("DS_COMM");
  }
  if (name != "" && name != "shm" && name != "gloo") {
    throw base::Error(
        base::ExitCode::config,
        "DS_COMM=" + name + " is not a transport",
        "environment",
        name == "nccl" ? "GPUs are not supported yet: shm or gloo"
                       : "it can be shm or gloo; unset, the best one is taken");
  }
  return name;
}

std::unique_ptr<Transport> make_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    const std::string& wanted,
    Rendezvous& rendezvous) {
  if (wanted == "gloo") {
    return make_gloo_transport(rank_info, timeout, rendezvous);
  }
  SharedMemoryResult result =
      make_shared_memory_transport(rank_info, timeout, rendezvous);
  if (result.transport) {
    return std::move(result.transport);
  }
  if (wanted == "shm") {
    throw base::Error(
        base::ExitCode::config,
        "DS_COMM=shm, but the ranks cannot share memory: " + result.reason,
        "environment",
        "without DS_COMM they talk over Gloo");
  }
  if (rank_info.rank == 0 && rank_info.is_one_host()) {
    base::log_warning(
        "ranks talk over Gloo, since they cannot share memory: " +
        result.reason);
  }
  return make_gloo_transport(rank_info, timeout, rendezvous);
}

} // namespace

std::shared_ptr<ProcessGroup> make_process_group(
    const RankInfo& rank_info,
    const ProcessGroupOptions& options) {
  const std::chrono::milliseconds timeout = timeout_of(options);
  const std::string wanted = transport_name(options);
  if (rank_info.world_size == 1) {
    return std::make_shared<ProcessGroup>(0, 1, make_single_transport());
  }
  // It ends, and with it the open port, once all ranks talk to each other.
  Rendezvous rendezvous(rank_info, timeout);
  // Ranks that differ here would wait for each other in vain.
  const std::vector<std::string> settings = rendezvous.exchange(
      "settings", std::string(base::kVersion) + " DS_COMM=" + wanted);
  for (int rank = 0; rank < rank_info.world_size; ++rank) {
    if (settings[rank] != settings[0]) {
      throw base::Error(
          base::ExitCode::config,
          "rank 0 runs version '" + settings[0] + "', rank " +
              std::to_string(rank) + " '" + settings[rank] + "'",
          "",
          "start all ranks with the same program and environment");
    }
  }
  auto group = std::make_shared<ProcessGroup>(
      rank_info.rank,
      rank_info.world_size,
      make_transport(rank_info, timeout, wanted, rendezvous));
  group->barrier();
  return group;
}

} // namespace deepspeed::comm
