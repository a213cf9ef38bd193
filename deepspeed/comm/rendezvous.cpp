// Joining of the ranks over c10d's TCPStore.
#include "deepspeed/comm/rendezvous.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/bounded_call.h"
#include "deepspeed/comm/bounded_store.h"
#include "deepspeed/comm/c10d_error.h"

namespace deepspeed::comm {
namespace {

using base::Error;
using base::ExitCode;

constexpr const char* kListenVariable = "DS_MASTER_LISTEN_FD";
// What rank 0 says when it gives up, and how many ranks have read it.
constexpr const char* kFailedKey = "failed";
constexpr const char* kFailedReadKey = "failed_read";
// Rank 0 gives up first, and tells the others why in this time.
constexpr std::chrono::seconds kMargin{2};
// Calls of the store end so much later, since rank 0 waits for its readers.
constexpr std::chrono::seconds kStoreMargin{3};
// From when all ranks have come: for what they still tell each other.
constexpr std::chrono::milliseconds kSettling{30'000};

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

// The socket that the launcher opened, if it did.
Socket inherited_socket(int port) {
  const char* const text = std::getenv(kListenVariable);
  if (text == nullptr || *text == '\0') {
    return Socket();
  }
  char* end = nullptr;
  const auto number = static_cast<int>(std::strtol(text, &end, 10));
  sockaddr_storage address = {};
  socklen_t length = sizeof address;
  const bool bound = *end == '\0' &&
      ::getsockname(number, reinterpret_cast<sockaddr*>(&address), &length) ==
          0;
  Socket socket(bound ? number : -1);
  if (!bound || socket.local().port != port ||
      ::listen(number, SOMAXCONN) != 0) {
    socket.release(); // who knows whose it is
    throw Error(
        ExitCode::config,
        std::string(kListenVariable) + "=" + text +
            " is not a socket bound to port " + std::to_string(port),
        "environment",
        "only the launcher sets it: unset it");
  }
  ::fcntl(number, F_SETFD, FD_CLOEXEC);
  ::unsetenv(kListenVariable);
  return socket;
}

// "2 s", "0.6 s".
std::string seconds_text(std::chrono::milliseconds duration) {
  const int64_t tenths = duration.count() / 100;
  return std::to_string(tenths / 10) +
      (tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10)) + " s";
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
    : rank_info_(rank_info),
      timeout_(timeout),
      deadline_(Clock::now() + timeout),
      is_server_(rank_info.rank == 0 && !rank_info.has_launcher_store),
      // A store of the launcher outlives a start of the run.
      prefix_(
          rank_info.has_launcher_store ? "deepspeed/" + rank_info.job_id + "/"
                                       : "deepspeed/") {
  if (rank_info_.is_one_host() && !rank_info_.has_launcher_store) {
    rank_info_.master_addr = kLoopback;
  }
  connect();
  join();
}

// What MASTER_ADDR means on this host. Systems give their own name a loopback
// address (Debian: 127.0.1.1), by which no other host comes.
std::vector<std::string> Rendezvous::master_addresses() const {
  std::vector<std::string> addresses = resolve(rank_info_.master_addr);
  const bool outside = std::any_of(
      addresses.begin(), addresses.end(), [](const std::string& one) {
        return !is_loopback(one);
      });
  if (!outside && !rank_info_.is_one_host()) {
    for (const InterfaceAddress& one : interface_addresses()) {
      addresses.push_back(one.address);
    }
  }
  return addresses;
}

Socket Rendezvous::listen_for_others() {
  const int port = rank_info_.master_port;
  Socket inherited = inherited_socket(port);
  if (inherited.number() >= 0) {
    return inherited;
  }
  if (rank_info_.is_one_host()) {
    return listen_at(kLoopback, port);
  }
  std::vector<std::string> addresses = master_addresses();
  std::erase_if(addresses, [](const std::string& one) {
    return is_loopback(one) || !is_own_address(one);
  });
  // More than one: MASTER_ADDR says nothing, or has an address of each kind,
  // and which of them the others take is theirs.
  return listen_at(addresses.size() == 1 ? addresses[0] : "", port);
}

// Sets own_address_ and returns the numeric address of rank 0.
std::string Rendezvous::reach_rank_0() {
  constexpr std::chrono::seconds kOneTry{5};
  constexpr std::chrono::milliseconds kLongestPause{500};
  std::chrono::milliseconds pause{10};
  std::string failures;
  while (true) {
    try {
      std::vector<Endpoint> endpoints;
      for (const std::string& address : master_addresses()) {
        endpoints.push_back({address, rank_info_.master_port});
      }
      failures.clear();
      for (const Attempt& attempt : connect_all(
               endpoints, 1, std::min(deadline_, Clock::now() + kOneTry))) {
        if (attempt.failure.empty()) {
          own_address_ = attempt.socket.local().address;
          return attempt.to.address;
        }
        failures += (failures.empty() ? "" : "; ") + to_text(attempt.to) +
            ": " + attempt.failure;
      }
    } catch (const Error& error) {
      failures = error.what();
    }
    if (Clock::now() + pause >= deadline_) {
      throw Error(
          ExitCode::unavailable,
          "rank " + std::to_string(rank_info_.rank) +
              " cannot reach rank 0 at " + master_text() + " in " +
              seconds_text(timeout_),
          failures,
          "is rank 0 running, do MASTER_ADDR and MASTER_PORT name its host, "
          "and does no firewall close that port?");
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
}

void Rendezvous::connect() {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(rank_info_.master_port);
  options.waitWorkers = false;
  options.isServer = is_server_;
  Socket socket;
  std::string address;
  if (is_server_) {
    socket = listen_for_others();
    own_address_ = socket.local().address;
    const bool all = own_address_ == "::" || own_address_ == "0.0.0.0";
    address = all ? kLoopback : own_address_;
  } else {
    // TCPStore would take longer than it should, and not say why.
    address = master_address_ = reach_rank_0();
  }
  if (socket.number() >= 0) {
    options.masterListenFd = socket.release();
  }
  const auto limit = deadline_ + kStoreMargin;
  options.timeout = std::max(
      std::chrono::milliseconds(1),
      std::chrono::ceil<std::chrono::milliseconds>(limit - Clock::now()));
  const QuietC10d quiet;
  std::optional<c10::intrusive_ptr<c10d::TCPStore>> store;
  try {
    store = finish_by(limit, [address, options] {
      return c10::make_intrusive<c10d::TCPStore>(address, options);
    });
  } catch (const std::exception& error) {
    throw Error(
        ExitCode::unavailable,
        "rank " + std::to_string(rank_info_.rank) +
            " has no talk with rank 0 at " + master_text() + ": " +
            first_line(error),
        "",
        "its own last lines say why");
  }
  if (!store) {
    fail_silent();
  }
  store_ = c10::make_intrusive<BoundedStore>(*std::move(store), limit);
}

void Rendezvous::set_deadline(Clock::time_point deadline) {
  deadline_ = deadline;
  store_->set_deadline(deadline + kStoreMargin);
}

std::string Rendezvous::master_text() const {
  return to_text({rank_info_.master_addr, rank_info_.master_port});
}

Rendezvous::~Rendezvous() {
  if (store_) {
    store_->release();
  }
}

void Rendezvous::guarded(const std::function<void()>& step) const {
  const QuietC10d quiet;
  try {
    step();
  } catch (const Error&) {
    throw;
  } catch (const NoAnswer&) {
    fail_silent();
  } catch (const std::exception& error) {
    throw Error(
        ExitCode::unavailable,
        "rank " + std::to_string(rank_info_.rank) + " lost rank 0 at " +
            master_text() + " while joining: " + first_line(error),
        "",
        "the last lines of rank 0 say why");
  }
}

// The run is compared before the rank is claimed: a rank of another run must
// not leave a trace.
void Rendezvous::join() {
  const std::string run_key = prefix_ + "run";
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
          "rank 0 did not join at " + master_text(),
          "",
          "its own last lines say why");
    }
    const std::vector<uint8_t> value = store_->get(run_key);
    const std::string other(value.begin(), value.end());
    if (other != run) {
      throw Error(
          ExitCode::config,
          "rank " + std::to_string(rank_info_.rank) + " belongs to run '" +
              run + "', but at " + master_text() + " is run '" + other + "'",
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
  return prefix_ + name + "/" + std::to_string(rank);
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
    const std::string read = prefix_ + name + "_read";
    store_->add(read, 1);
    if (rank_info_.rank == 0) {
      wait_for_readers(read, rank_info_.world_size);
    }
  });
  // All are there, and what follows takes moments: also for one who came late.
  set_deadline(
      std::max(deadline_, Clock::now() + std::min(timeout_, kSettling)));
  return result;
}

bool Rendezvous::wait_for(const std::vector<std::string>& keys) const {
  constexpr std::chrono::milliseconds kLongestPause{50};
  const Clock::time_point end =
      deadline_ + (rank_info_.rank == 0 ? std::chrono::seconds(0) : kMargin);
  std::chrono::milliseconds pause{1};
  while (!store_->check(keys)) {
    if (store_->check({prefix_ + kFailedKey})) {
      const std::vector<uint8_t> text = store_->get(prefix_ + kFailedKey);
      store_->add(prefix_ + kFailedReadKey, 1);
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
  const std::string text = "not all ranks joined in " + seconds_text(timeout_) +
      ": missing " + list_of(missing) + "; joined " + list_of(joined);
  if (rank_info_.rank == 0) {
    store_->set(prefix_ + kFailedKey, bytes(text));
    wait_for_readers(
        prefix_ + kFailedReadKey, static_cast<int64_t>(joined.size()) - 1);
  }
  throw Error(ExitCode::unavailable, text, "", kMissingHint);
}

// The others may be there or not: only rank 0 could tell.
void Rendezvous::fail_silent() const {
  if (is_server_) {
    throw Error(
        ExitCode::unavailable,
        "rank 0 does not reach its own store at " +
            to_text({own_address_, rank_info_.master_port}),
        "",
        "has this host lost that address?");
  }
  const bool has_launcher = rank_info_.has_launcher_store;
  std::string others;
  for (int rank = 1; rank < rank_info_.world_size; ++rank) {
    if (rank != rank_info_.rank) {
      others += (others.empty() ? "; not known " : ", ") + std::to_string(rank);
    }
  }
  throw Error(
      ExitCode::unavailable,
      "not all ranks joined in " + seconds_text(timeout_) + ": missing " +
          (has_launcher ? "the launcher's store" : "0") + "; joined " +
          std::to_string(rank_info_.rank) + others,
      (has_launcher ? "it" : "rank 0") + std::string(" at ") + master_text() +
          " takes connections, but does not answer",
      "its process may be stopped (state T in ps), or its host overloaded");
}

c10::intrusive_ptr<c10d::Store> Rendezvous::store() const {
  return c10::make_intrusive<c10d::PrefixStore>(prefix_ + "c10d", store_);
}

} // namespace deepspeed::comm
