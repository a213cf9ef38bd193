// Collectives between the ranks of one host, through memory they all map.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "deepspeed/comm/rank_info.h"
#include "deepspeed/comm/transport.h"

namespace deepspeed::comm {

class Rendezvous;

struct SharedMemoryResult {
  std::unique_ptr<Transport> transport; // null when it is not possible
  std::string reason; // why not
};

// Called by all ranks, which agree on the result. It is null when they are not
// all on one host, as one user, or the system does not let them open each
// other's memory through /proc. Throws base::Error(unavailable).
SharedMemoryResult make_shared_memory_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    Rendezvous& rendezvous);

} // namespace deepspeed::comm
