// The port at which rank 0 waits for the others.
#pragma once

#include <string>

#include "deepspeed/launcher/pipe.h"

namespace deepspeed::launcher {

// A port that is ours: the socket is bound but does not listen yet. Rank 0
// inherits it (DS_MASTER_LISTEN_FD) and only has to listen, so no other program
// can take the port meanwhile. A program that does not know the variable (a
// Python one) can still bind the port itself, since the socket allows its
// address to be used again until somebody listens.
struct ReservedPort {
  file::Descriptor socket;
  int port = 0;
};

// Reserves `port` (0 = any free one) of `address`, an IPv4 address of this
// host. Error(unavailable) if somebody uses the port, with the process if /proc
// tells.
ReservedPort reserve_port(const std::string& address, int port);

// "pid 123 (python3 train.py)" of the process that listens at a TCP port, or
// "".
std::string port_owner(int port);

} // namespace deepspeed::launcher
