// How the ranks of a run find each other: a key-value store at rank 0.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "deepspeed/comm/rank_info.h"

namespace c10d {
class Store;
} // namespace c10d

namespace deepspeed::comm {

// A rank's connection to the store. Rank 0 listens, unless the launcher holds
// the store: on the loopback address when all ranks run on this host, else on
// all addresses. It takes over the listening socket whose number is in
// DS_MASTER_LISTEN_FD, if there is one (and unsets that variable), so that a
// launcher can choose a free port without a race.
//
// A rank that comes with another job_id or world_size, or as a rank that is
// there already, is refused. That stops accidents, not attackers: the network
// between the hosts must be trusted.
class Rendezvous {
 public:
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

  // For c10d; its keys do not meet those of exchange().
  c10::intrusive_ptr<c10d::Store> store() const;

  // The address of this host towards the other ranks.
  std::string own_address() const;

 private:
  void connect();
  void join();
  std::string key(const std::string& name, int rank) const;
  // Runs `step`; what it throws becomes an Error about the store.
  void guarded(const std::function<void()>& step) const;
  // False after the timeout. Throws when rank 0 has given up.
  bool wait_for(const std::vector<std::string>& keys) const;
  void wait_for_readers(const std::string& key, int64_t readers) const;
  [[noreturn]] void fail_missing(const std::string& name) const;

  RankInfo rank_info_;
  std::chrono::milliseconds timeout_;
  std::string host_; // where this rank connects to
  c10::intrusive_ptr<c10d::Store> store_;
};

} // namespace deepspeed::comm
