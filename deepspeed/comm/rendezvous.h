// How the ranks of a run find each other: a key-value store at rank 0.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "deepspeed/comm/rank_info.h"
#include "deepspeed/comm/tcp_socket.h"

namespace c10d {
class Store;
} // namespace c10d

namespace deepspeed::comm {

class BoundedStore;

// A rank's connection to the store, which goes with this object. Rank 0
// listens, unless the launcher holds the store: on the loopback address when
// all ranks run on this host, else on the address of this host that
// MASTER_ADDR means, and on all only when it means none that others can see.
// It takes over the listening socket whose number is in DS_MASTER_LISTEN_FD, if
// there is one (and unsets that variable), so that a launcher can choose a free
// port without a race.
//
// A rank that comes with another job_id or world_size, or as a rank that is
// there already, is refused. That stops accidents, not attackers: the store has
// no secret, so the network between the hosts must be trusted while the ranks
// join.
//
// No call takes longer than the timeout and some seconds, also when the process
// that holds the store is stopped.
class Rendezvous {
 public:
  using Clock = std::chrono::steady_clock;

  // The timeout is that of all ranks together, from here until all have come.
  // Throws base::Error: unavailable when the port is taken or rank 0 cannot be
  // reached in time, config when the ranks do not belong together.
  Rendezvous(const RankInfo& rank_info, std::chrono::milliseconds timeout);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  // The texts of all ranks, by rank. A `name` is used once. Throws
  // base::Error(unavailable) listing the ranks that came and those that did
  // not.
  std::vector<std::string> exchange(
      const std::string& name,
      const std::string& text);

  // For c10d; its keys do not meet those of exchange(). It may be kept, but has
  // no use when this object is gone.
  c10::intrusive_ptr<c10d::Store> store() const;

  // When the ranks must have joined.
  Clock::time_point deadline() const {
    return deadline_;
  }
  // The numeric address of this host on its way to rank 0; of rank 0, where it
  // listens. A loopback address or "" when that says nothing.
  const std::string& own_address() const {
    return own_address_;
  }
  // The address at which this rank reached rank 0; "" of rank 0 itself.
  const std::string& master_address() const {
    return master_address_;
  }

 private:
  void connect();
  void join();
  Socket listen_for_others();
  std::string reach_rank_0();
  std::vector<std::string> master_addresses() const;
  std::string key(const std::string& name, int rank) const;
  void set_deadline(Clock::time_point deadline);
  // Runs `step`; what it throws becomes an Error about the store.
  void guarded(const std::function<void()>& step) const;
  // False after the timeout. Throws when rank 0 has given up.
  bool wait_for(const std::vector<std::string>& keys) const;
  void wait_for_readers(const std::string& key, int64_t readers) const;
  [[noreturn]] void fail_missing(const std::string& name) const;
  [[noreturn]] void fail_silent() const;
  std::string master_text() const;

  RankInfo rank_info_;
  std::chrono::milliseconds timeout_;
  Clock::time_point deadline_;
  bool is_server_;
  std::string prefix_; // of all keys
  std::string own_address_;
  std::string master_address_;
  c10::intrusive_ptr<BoundedStore> store_;
};

} // namespace deepspeed::comm
