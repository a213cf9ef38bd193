// The addresses by which hosts reach each other.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepspeed::launcher {

// Numeric addresses, as a host sees them to which the launcher has come.
struct HostAddress {
  std::string own;
  std::string launcher; // "" if it is not known
};

// Of this host. `ssh_connection` is ssh's "CLIENT PORT SERVER PORT" or "": the
// server is what the hostfile's name means. If that is missing or a loopback
// address, `own` is one of an interface that is up, IPv4 before IPv6, or
// "127.0.0.1" without any.
HostAddress this_host_address(std::string_view ssh_connection);

std::string to_text(const HostAddress& address);
HostAddress parse_host_address(std::string_view text);

// Where the others reach the first of `hosts`. One that runs the launcher, and
// so was reached over its loopback, is seen by the others as the launcher.
std::string master_address(const std::vector<HostAddress>& hosts);

} // namespace deepspeed::launcher
