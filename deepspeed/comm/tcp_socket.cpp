// TCP between hosts: names, addresses, and connecting within a time.
#include "deepspeed/comm/tcp_socket.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

using Clock = std::chrono::steady_clock;
using base::Error;
using base::ExitCode;

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(sockaddr_storage);

  sockaddr* plain() {
    return reinterpret_cast<sockaddr*>(&storage);
  }
  const sockaddr* plain() const {
    return reinterpret_cast<const sockaddr*>(&storage);
  }
  int family() const {
    return storage.ss_family;
  }
};

std::string address_text(const sockaddr* address, socklen_t length) {
  char text[NI_MAXHOST] = {};
  const int error = ::getnameinfo(
      address, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return error == 0 ? text : "";
}

Endpoint endpoint_of(const SocketAddress& address) {
  Endpoint endpoint{address_text(address.plain(), address.length), 0};
  if (address.family() == AF_INET6) {
    endpoint.port = ntohs(
        reinterpret_cast<const sockaddr_in6*>(address.plain())->sin6_port);
  } else if (address.family() == AF_INET) {
    endpoint.port =
        ntohs(reinterpret_cast<const sockaddr_in*>(address.plain())->sin_port);
  }
  // An IPv4 peer of a socket that takes both kinds.
  constexpr std::string_view kMapped = "::ffff:";
  if (endpoint.address.starts_with(kMapped)) {
    endpoint.address.erase(0, kMapped.size());
  }
  return endpoint;
}

// Of a numeric address. AF_UNSPEC if it is none.
SocketAddress socket_address(const Endpoint& endpoint) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  SocketAddress result;
  if (::getaddrinfo(
          endpoint.address.c_str(),
          std::to_string(endpoint.port).c_str(),
          &hints,
          &found) == 0) {
    std::memcpy(&result.storage, found->ai_addr, found->ai_addrlen);
    result.length = found->ai_addrlen;
    ::freeaddrinfo(found);
  }
  return result;
}

// -1 with errno set when that fails.
int bind_and_listen(const SocketAddress& address) {
  const int number = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (number < 0) {
    return -1;
  }
  const int on = 1;
  const int off = 0;
  ::setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.family() == AF_INET6) { // "::" takes IPv4, too
    ::setsockopt(number, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  if (::bind(number, address.plain(), address.length) != 0 ||
      ::listen(number, SOMAXCONN) != 0) {
    const int error = errno;
    ::close(number);
    errno = error;
    return -1;
  }
  return number;
}

bool holds_on_one_link(const std::string& address) {
  return address.starts_with("169.254.") || address.starts_with("fe80:");
}

void start(Attempt& attempt) {
  const SocketAddress address = socket_address(attempt.to);
  attempt.socket = Socket(::socket(
      address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (attempt.socket.number() < 0 ||
      (::connect(attempt.socket.number(), address.plain(), address.length) !=
           0 &&
       errno != EINPROGRESS)) {
    attempt.failure = std::strerror(errno);
  }
}

// Of an attempt whose socket has something to tell.
void settle(Attempt& attempt) {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(attempt.socket.number(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    attempt.failure = std::strerror(error);
  } else if (attempt.socket.local() == attempt.to) {
    // Where nobody listens, a socket that is given this port meets itself.
    attempt.failure = std::strerror(ECONNREFUSED);
  }
}

} // namespace

std::string to_text(const Endpoint& endpoint) {
  const bool v6 = endpoint.address.find(':') != std::string::npos;
  return (v6 ? "[" + endpoint.address + "]" : endpoint.address) + ":" +
      std::to_string(endpoint.port);
}

Socket::~Socket() {
  if (number_ >= 0) {
    ::close(number_);
  }
}

Endpoint Socket::local() const {
  SocketAddress address;
  if (::getsockname(number_, address.plain(), &address.length) != 0) {
    throw base::system_error(
        ExitCode::unavailable, "no address of a socket", "", errno);
  }
  return endpoint_of(address);
}

Endpoint Socket::remote() const {
  SocketAddress address;
  if (::getpeername(number_, address.plain(), &address.length) != 0) {
    throw base::system_error(
        ExitCode::unavailable, "a connection has ended", "", errno);
  }
  return endpoint_of(address);
}

std::vector<InterfaceAddress> interface_addresses() {
  ifaddrs* all = nullptr;
  std::vector<InterfaceAddress> result;
  if (::getifaddrs(&all) != 0) {
    return result;
  }
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
      if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != family ||
          (one->ifa_flags & IFF_UP) == 0) {
        continue;
      }
      const std::string address = address_text(
          one->ifa_addr,
          family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
      if (!address.empty() && !is_loopback(address)) {
        result.push_back({one->ifa_name, address});
      }
    }
  }
  ::freeifaddrs(all);
  std::stable_partition(
      result.begin(), result.end(), [](const InterfaceAddress& one) {
        return !holds_on_one_link(one.address);
      });
  return result;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1" ||
      address == "0.0.0.0" || address == "::";
}

std::vector<std::string> resolve(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    throw Error(
        ExitCode::unavailable,
        "no address of '" + host + "': " + ::gai_strerror(error),
        "",
        "give a name that all hosts know, or an address");
  }
  std::vector<std::string> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const std::string text = address_text(one->ai_addr, one->ai_addrlen);
    if (std::find(addresses.begin(), addresses.end(), text) ==
        addresses.end()) {
      addresses.push_back(text);
    }
  }
  ::freeaddrinfo(found);
  return addresses;
}

Socket listen_at(const std::string& address, int port) {
  int number =
      bind_and_listen(socket_address({address.empty() ? "::" : address, port}));
  if (number < 0 && address.empty()) { // no IPv6 here
    number = bind_and_listen(socket_address({"0.0.0.0", port}));
  }
  if (number < 0) {
    throw Error(
        ExitCode::unavailable,
        "cannot listen at port " + std::to_string(port) + ": " +
            std::strerror(errno),
        address.empty() ? "" : "address " + address,
        "give another MASTER_PORT (deepspeed: --master_port), or none");
  }
  return Socket(number);
}

bool is_own_address(const std::string& address) {
  const SocketAddress wanted = socket_address({address, 0});
  const Socket socket(::socket(wanted.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  return socket.number() >= 0 &&
      ::bind(socket.number(), wanted.plain(), wanted.length) == 0;
}

std::vector<Attempt> connect_all(
    std::span<const Endpoint> endpoints,
    size_t enough,
    Clock::time_point deadline) {
  std::vector<Attempt> attempts;
  size_t waiting = 0;
  for (const Endpoint& endpoint : endpoints) {
    attempts.push_back({endpoint, Socket(), ""});
    start(attempts.back());
    waiting += attempts.back().failure.empty() ? 1 : 0;
  }
  std::vector<pollfd> polled;
  for (const Attempt& attempt : attempts) {
    const bool waits = attempt.failure.empty();
    polled.push_back({waits ? attempt.socket.number() : -1, POLLOUT, 0});
  }
  size_t answered = 0;
  while (waiting > 0 && answered < enough) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const int ready =
        ::poll(polled.data(), polled.size(), std::max<int>(0, left.count()));
    if (ready == 0 && left.count() <= 0) {
      break;
    }
    for (size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].fd >= 0 && polled[i].revents != 0) {
        settle(attempts[i]);
        polled[i].fd = -1;
        --waiting;
        answered += attempts[i].failure.empty() ? 1 : 0;
      }
    }
  }
  for (size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].fd >= 0) {
      attempts[i].failure = std::strerror(ETIMEDOUT);
    }
  }
  return attempts;
}

} // namespace deepspeed::comm
