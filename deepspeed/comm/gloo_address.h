// The addresses at which the ranks meet over Gloo.
#pragma once

#include <string>

#include "deepspeed/comm/rank_info.h"

namespace deepspeed::comm {

class Rendezvous;

// The numeric address of this host that this rank offers to all others, after
// each has been seen to reach each other there; a collective of the ranks.
//
// It is that of the interface GLOO_SOCKET_IFNAME if that is set, else the one
// by which this host and rank 0 talk. Rank 0 says all of them in one line when
// there are several hosts.
//
// Throws base::Error: unavailable naming who does not reach whom and where,
// within seconds; config for an interface that is not there.
std::string agree_on_address(const RankInfo& rank_info, Rendezvous& rendezvous);

} // namespace deepspeed::comm
