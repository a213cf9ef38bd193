// The addresses by which hosts reach each other.
#include "deepspeed/launcher/host_address.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>

#include <sstream>

namespace deepspeed::launcher {

namespace {

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

std::string first_interface_address() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) {
    return "127.0.0.1";
  }
  std::string best;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
      const bool usable = one->ifa_addr != nullptr &&
          one->ifa_addr->sa_family == family &&
          (one->ifa_flags & IFF_UP) != 0 &&
          (one->ifa_flags & IFF_LOOPBACK) == 0;
      char text[NI_MAXHOST];
      const socklen_t size =
          family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
      if (best.empty() && usable &&
          ::getnameinfo(
              one->ifa_addr,
              size,
              text,
              sizeof text,
              nullptr,
              0,
              NI_NUMERICHOST) == 0) {
        best = text;
      }
    }
  }
  ::freeifaddrs(all);
  return best.empty() ? "127.0.0.1" : best;
}

} // namespace

HostAddress this_host_address(std::string_view ssh_connection) {
  std::istringstream parts{std::string(ssh_connection)};
  HostAddress address;
  std::string port;
  parts >> address.launcher >> port >> address.own;
  if (address.own.empty() || is_loopback(address.own)) {
    address.own = first_interface_address();
  }
  return address;
}

std::string to_text(const HostAddress& address) {
  return address.own + " " + address.launcher;
}

HostAddress parse_host_address(std::string_view text) {
  std::istringstream parts{std::string(text)};
  HostAddress address;
  parts >> address.own >> address.launcher;
  return address;
}

std::string master_address(const std::vector<HostAddress>& hosts) {
  if (is_loopback(hosts.front().launcher)) {
    for (const HostAddress& other : hosts) {
      if (!other.launcher.empty() && !is_loopback(other.launcher)) {
        return other.launcher;
      }
    }
  }
  return hosts.front().own;
}

} // namespace deepspeed::launcher
