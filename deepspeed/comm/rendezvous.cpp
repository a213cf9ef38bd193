// Joining of the ranks over c10d's TCPStore.
#include "deepspeed/comm/rendezvous.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/c10d_error.h"

namespace deepspeed::comm {
namespace {

using base::Error;
using base::ExitCode;

constexpr const char* kLoopback = "127.0.0.1";
constexpr const char* kListenVariable = "DS_MASTER_LISTEN_FD";
// What rank 0 says when it gives up, and how many ranks have read it.
constexpr const char* kFailedKey = "deepspeed/failed";
constexpr const char* kFailedReadKey = "deepspeed/failed_read";

// c10d writes stack traces to standard error for a rank that comes late and
// for each connection that ends. What matters is in the Error.
class QuietC10d {
 public:
  QuietC10d() : saved_(FLAGS_caffe2_log_level) {
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
      FLAGS_caffe2_log_level = 3; // fatal errors only
    }
  }
  ~QuietC10d() {
    FLAGS_caffe2_log_level = saved_;
  }
  QuietC10d(const QuietC10d&) = delete;
  QuietC10d& operator=(const QuietC10d&) = delete;

 private:
  int saved_;
};

constexpr const char* kMissingHint =
    "look for the last lines of the missing ranks; DEEPSPEED_TIMEOUT "
    "(minutes) sets how long to wait";

std::string place(const std::string& host, int port) {
  return host + ":" + std::to_string(port);
}

// Binds `family`; -1 with errno set when that fails.
int bind_socket(int family, bool loopback, int port) {
  const int number = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (number < 0) {
    return -1;
  }
  const int on = 1;
  const int off = 0;
  ::setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage address = {};
  socklen_t length = sizeof(sockaddr_in);
  if (family == AF_INET6) {
    ::setsockopt(number, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    v6->sin6_addr = in6addr_any;
    length = sizeof(sockaddr_in6);
  } else {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    v4->sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
  }
  if (::bind(number, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(number, SOMAXCONN) != 0) {
    const int error = errno;
    ::close(number);
    errno = error;
    return -1;
  }
  return number;
}

int listen_at(bool loopback, int port) {
  int number = loopback ? -1 : bind_socket(AF_INET6, loopback, port);
  if (number < 0) {
    number = bind_socket(AF_INET, loopback, port);
  }
  if (number < 0) {
    throw Error(
        ExitCode::unavailable,
        "cannot listen at port " + std::to_string(port) + ": " +
            std::strerror(errno),
        "",
        "give another MASTER_PORT (deepspeed: --master_port), or none");
  }
  return number;
}

// The socket that the launcher opened, if it did.
int inherited_socket(int port) {
  const char* const text = std::getenv(kListenVariable);
  if (text == nullptr || *text == '\0') {
    return -1;
  }
  const int number = std::atoi(text);
  sockaddr_in address = {};
  socklen_t address_length = sizeof address;
  if (::getsockname(
          number, reinterpret_cast<sockaddr*>(&address), &address_length) !=
          0 ||
      ntohs(address.sin_port) != port || ::listen(number, SOMAXCONN) != 0) {
    throw Error(
        ExitCode::config,
        std::string(kListenVariable) + "=" + text +
            " is not a socket bound to port " + std::to_string(port),
        "environment",
        "only the launcher sets it: unset it");
  }
  ::fcntl(number, F_SETFD, FD_CLOEXEC);
  ::unsetenv(kListenVariable);
  return number;
}

std::vector<uint8_t> bytes(const std::string& text) {
  return {text.begin(), text.end()};
}

std::string list_of(const std::vector<int>& ranks) {
  std::string text;
  for (const int rank : ranks) {
    text += (text.empty() ? "" : ", ") + std::to_string(rank);
  }
  return text.empty() ? "none" : text;
}

} // namespace

Rendezvous::Rendezvous(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout)
    : rank_info_(rank_info), timeout_(timeout), host_(rank_info.master_addr) {
  if (rank_info_.is_one_host() && !rank_info_.has_launcher_store) {
    host_ = kLoopback;
  }
  connect();
  join();
}

void Rendezvous::connect() {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(rank_info_.master_port);
  options.timeout = timeout_;
  options.waitWorkers = false;
  options.isServer = rank_info_.rank == 0 && !rank_info_.has_launcher_store;
  if (options.isServer) {
    const int inherited = inherited_socket(rank_info_.master_port);
    options.masterListenFd = inherited >= 0
        ? inherited
        : listen_at(host_ == kLoopback, rank_info_.master_port);
  }
  const QuietC10d quiet;
  try {
    store_ = c10::make_intrusive<c10d::TCPStore>(
        options.isServer ? kLoopback : host_, options);
  } catch (const std::exception& error) {
    throw Error(
        ExitCode::unavailable,
        "rank " + std::to_string(rank_info_.rank) + " cannot reach rank 0 at " +
            place(host_, rank_info_.master_port) + ": " + first_line(error),
        "",
        "is rank 0 running, and do MASTER_ADDR and MASTER_PORT name its host?");
  }
}

Rendezvous::~Rendezvous() = default;

void Rendezvous::guarded(const std::function<void()>& step) const {
  const QuietC10d quiet;
  try {
    step();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(
        ExitCode::unavailable,
        "rank " + std::to_string(rank_info_.rank) + " lost rank 0 at " +
            place(host_, rank_info_.master_port) +
            " while joining: " + first_line(error),
        "",
        "the last lines of rank 0 say why");
  }
}

// The run is compared before the rank is claimed: a rank of another run must
// not leave a trace.
void Rendezvous::join() {
  const std::string run_key = "deepspeed/run";
  const std::string run = rank_info_.job_id + " with " +
      std::to_string(rank_info_.world_size) + " ranks";
  guarded([&] {
    if (rank_info_.rank == 0) {
      store_->set(run_key, bytes(run));
      return;
    }
    if (!wait_for({run_key})) {
      throw Error(
          ExitCode::unavailable,
          "rank 0 did not join at " + place(host_, rank_info_.master_port),
          "",
          "its own last lines say why");
    }
    const std::vector<uint8_t> value = store_->get(run_key);
    const std::string other(value.begin(), value.end());
    if (other != run) {
      throw Error(
          ExitCode::config,
          "rank " + std::to_string(rank_info_.rank) + " belongs to run '" +
              run + "', but at " + place(host_, rank_info_.master_port) +
              " is run '" + other + "'",
          "",
          "two runs need two ports: give another MASTER_PORT");
    }
  });
  guarded([&] {
    if (store_->add(key("claim", rank_info_.rank), 1) != 1) {
      throw Error(
          ExitCode::config,
          "two processes say that they are rank " +
              std::to_string(rank_info_.rank),
          "environment",
          "each needs a RANK of its own");
    }
  });
}

std::string Rendezvous::key(const std::string& name, int rank) const {
  return "deepspeed/" + name + "/" + std::to_string(rank);
}

std::vector<std::string> Rendezvous::exchange(
    const std::string& name,
    const std::string& text) {
  std::vector<std::string> keys;
  for (int rank = 0; rank < rank_info_.world_size; ++rank) {
    keys.push_back(key(name, rank));
  }
  std::vector<std::string> result;
  guarded([&] {
    store_->set(keys[rank_info_.rank], bytes(text));
    if (!wait_for(keys)) {
      fail_missing(name);
    }
    for (const std::string& one : keys) {
      const std::vector<uint8_t> value = store_->get(one);
      result.emplace_back(value.begin(), value.end());
    }
    const std::string read = "deepspeed/" + name + "_read";
    store_->add(read, 1);
    if (rank_info_.rank == 0) {
      wait_for_readers(read, rank_info_.world_size);
    }
  });
  return result;
}

bool Rendezvous::wait_for(const std::vector<std::string>& keys) const {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kLongestPause{50};
  // Rank 0 came first, gives up first, and tells the others why.
  constexpr std::chrono::seconds kMargin{2};
  const Clock::time_point end = Clock::now() + timeout_ +
      (rank_info_.rank == 0 ? std::chrono::seconds(0) : kMargin);
  std::chrono::milliseconds pause{1};
  while (!store_->check(keys)) {
    if (store_->check({kFailedKey})) {
      const std::vector<uint8_t> text = store_->get(kFailedKey);
      store_->add(kFailedReadKey, 1);
      throw Error(
          ExitCode::unavailable,
          std::string(text.begin(), text.end()),
          "",
          kMissingHint);
    }
    if (Clock::now() >= end) {
      return false;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
  return true;
}

// The store goes with rank 0, which may end at once if it does not like what it
// read: then the others must have read it, too.
void Rendezvous::wait_for_readers(const std::string& key, int64_t readers)
    const {
  constexpr int kTries = 3000; // of 1 ms: some seconds, then the store goes
  for (int i = 0; i < kTries && store_->add(key, 0) < readers; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Rendezvous::fail_missing(const std::string& name) const {
  std::vector<int> joined;
  std::vector<int> missing;
  for (int rank = 0; rank < rank_info_.world_size; ++rank) {
    const bool there = store_->check({key(name, rank)});
    (there ? joined : missing).push_back(rank);
  }
  const std::string text = "not all ranks joined in " +
      std::to_string(timeout_.count() / 1000) + " s: missing " +
      list_of(missing) + "; joined " + list_of(joined);
  if (rank_info_.rank == 0) {
    store_->set(kFailedKey, bytes(text));
    wait_for_readers(kFailedReadKey, static_cast<int64_t>(joined.size()) - 1);
  }
  throw Error(ExitCode::unavailable, text, "", kMissingHint);
}

c10::intrusive_ptr<c10d::Store> Rendezvous::store() const {
  return c10::make_intrusive<c10d::PrefixStore>("c10d", store_);
}

std::string Rendezvous::own_address() const {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(rank_info_.master_port);
  if (::getaddrinfo(host_.c_str(), port.c_str(), &hints, &found) != 0) {
    return kLoopback;
  }
  std::string address = kLoopback;
  // Connecting a datagram socket sends nothing; it only chooses a route.
  const int number = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own = {};
  socklen_t length = sizeof own;
  char text[INET6_ADDRSTRLEN] = {};
  if (number >= 0 &&
      ::connect(number, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(number, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
      ::getnameinfo(
          reinterpret_cast<sockaddr*>(&own),
          length,
          text,
          sizeof text,
          nullptr,
          0,
          NI_NUMERICHOST) == 0) {
    address = text;
  }
  if (number >= 0) {
    ::close(number);
  }
  ::freeaddrinfo(found);
  return address;
}

} // namespace deepspeed::comm
