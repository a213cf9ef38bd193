// Collectives over TCP between hosts, by the Gloo of libtorch.
#pragma once

#include <chrono>
#include <memory>

#include "deepspeed/comm/rank_info.h"
#include "deepspeed/comm/transport.h"

namespace deepspeed::comm {

class Rendezvous;

// Connects every rank with every other. The network is that of the interface
// GLOO_SOCKET_IFNAME when it is set, else the one by which this host reaches
// rank 0. Throws base::Error(unavailable).
std::unique_ptr<Transport> make_gloo_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    const Rendezvous& rendezvous);

} // namespace deepspeed::comm
