// Collectives over TCP between hosts, by the Gloo of libtorch.
#pragma once

#include <chrono>
#include <memory>

#include "deepspeed/comm/rank_info.h"
#include "deepspeed/comm/transport.h"

namespace deepspeed::comm {

class Rendezvous;

// Connects every rank with every other, at the addresses of
// agree_on_address(). Throws base::Error(unavailable) within the time that the
// rendezvous has.
std::unique_ptr<Transport> make_gloo_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    Rendezvous& rendezvous);

} // namespace deepspeed::comm
