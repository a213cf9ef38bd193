// TCP between hosts: names, addresses, and connecting within a time.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace deepspeed::comm {

inline constexpr const char* kLoopback = "127.0.0.1";

// Where somebody listens: a numeric IPv4 or IPv6 address and a port.
struct Endpoint {
  std::string address;
  int port = 0;

  bool operator==(const Endpoint&) const = default;
};
// "10.0.0.1:29500", "[fe80::1%eth0]:29500".
std::string to_text(const Endpoint& endpoint);

// A descriptor that is closed with the object; -1 is none.
class Socket {
 public:
  explicit Socket(int number = -1) : number_(number) {}
  ~Socket();
  Socket(Socket&& other) noexcept : number_(other.release()) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const {
    return number_;
  }
  int release() {
    return std::exchange(number_, -1);
  }
  // Throw base::Error(unavailable) for what is no connected or bound socket.
  Endpoint local() const;
  Endpoint remote() const;

 private:
  int number_;
};

// An address of this host that other hosts may see, and its interface.
struct InterfaceAddress {
  std::string interface;
  std::string address;
};
// Of the interfaces that are up, without loopback; IPv4 first, addresses that
// hold on one link only (169.254.*, fe80:*) last.
std::vector<InterfaceAddress> interface_addresses();

// 127.*, ::1, and the address that stands for all (0.0.0.0, ::).
bool is_loopback(const std::string& address);

// The numeric addresses of a name, each once. Throws base::Error(unavailable)
// in the words of the resolver.
std::vector<std::string> resolve(const std::string& host);

// Listens at one address of this host, at all if it is empty; port 0 is any
// free one. Throws base::Error(unavailable), where() naming the address.
Socket listen_at(const std::string& address, int port);
// Whether this host has the address.
bool is_own_address(const std::string& address);

// A try to connect: a socket, or why there is none.
struct Attempt {
  Endpoint to;
  Socket socket;
  std::string failure; // "Connection refused"
};
// Connects to all at once. Returns when `enough` of them answered, or all have
// answered or failed, or at `deadline`.
std::vector<Attempt> connect_all(
    std::span<const Endpoint> endpoints,
    size_t enough,
    std::chrono::steady_clock::time_point deadline);

} // namespace deepspeed::comm
