// The choice of the transport.
#include <cstdlib>
#include <optional>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/version.h"
#include "deepspeed/comm/cuda_module.h"
#include "deepspeed/comm/gloo_transport.h"
#include "deepspeed/comm/nccl_transport.h"
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
  if (name != "" && name != "shm" && name != "gloo" && name != "nccl") {
    throw base::Error(
        base::ExitCode::config,
        "DS_COMM=" + name + " is not a transport",
        "environment",
        "it can be shm, gloo or nccl; unset, the best one for host memory is "
        "taken");
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

// Why there can be no NCCL in this process; nothing if there can.
std::optional<base::Error> what_nccl_lacks() {
  try {
    load_cuda_module();
    return std::nullopt;
  } catch (const base::Error& error) {
    return error;
  }
}

// Fails on all ranks when one of them cannot have NCCL.
void require_nccl(ProcessGroup& group, const std::optional<base::Error>& own) {
  const std::vector<std::string> all =
      group.all_gather_text(own ? own->what() : "");
  if (own) {
    throw *own;
  }
  for (int rank = 0; rank < group.size(); ++rank) {
    if (!all[rank].empty()) {
      throw base::Error(
          base::ExitCode::config,
          "rank " + std::to_string(rank) + ": " + all[rank],
          "DS_COMM=nccl or dist_backend",
          "its own last lines say what to do");
    }
  }
}

MakeGpuTransport make_gpu_of(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout) {
  return [rank = rank_info.rank, size = rank_info.world_size, timeout](
             at::Device device, Transport& host) {
    return make_nccl_transport(
        load_cuda_module(), {rank, size, timeout, device}, host);
  };
}

} // namespace

std::shared_ptr<ProcessGroup> make_process_group(
    const RankInfo& rank_info,
    const ProcessGroupOptions& options) {
  const std::chrono::milliseconds timeout = timeout_of(options);
  const std::string wanted = transport_name(options);
  std::optional<base::Error> lacks;
  MakeGpuTransport make_gpu;
  if (wanted == "nccl") {
    lacks = what_nccl_lacks();
    make_gpu = make_gpu_of(rank_info, timeout);
  }
  if (rank_info.world_size == 1) {
    if (lacks) {
      throw *lacks;
    }
    return std::make_shared<ProcessGroup>(
        0, 1, make_single_transport(), std::move(make_gpu));
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
      make_transport(rank_info, timeout, wanted, rendezvous),
      std::move(make_gpu));
  group->barrier();
  if (wanted == "nccl") {
    require_nccl(*group, lacks);
  }
  return group;
}

} // namespace deepspeed::comm
