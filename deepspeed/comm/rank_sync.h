// Points at which the ranks of one host wait for each other, in shared memory.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "deepspeed/comm/peer_process.h"

namespace deepspeed::comm {

// Of each rank, in memory that all ranks map; zeroed at the start.
struct alignas(64) RankCounter {
  // How many synchronization points this rank has reached. Only the rank
  // itself writes it.
  std::atomic<uint32_t> arrived;
  // Peers that sleep on `arrived`. One that is killed asleep stays counted,
  // which costs no more than needless wake-ups.
  std::atomic<uint32_t> sleepers;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// What RankSync needs to know besides the counters.
struct SyncOptions {
  int rank = 0;
  std::chrono::milliseconds timeout{};
  std::vector<PeerProcess> processes; // by rank
};

// Memory order: what a rank wrote before a point is seen by all ranks after
// it. Used by one thread of each rank; they are expected to run the same code,
// so the n-th point of one is the n-th of all.
//
// A waiting rank spins for some microseconds and then sleeps in the kernel: on
// a machine with as many ranks as cores, spinning would take the core away
// from the rank that it waits for.
class RankSync {
 public:
  // `counters` by rank; they outlive the object.
  RankSync(std::vector<RankCounter*> counters, SyncOptions options);

  // Returns when all ranks have come here. Throws base::Error(unavailable)
  // naming rank and process: within a second when one has died, and after the
  // timeout when some did not come. Warns once about a rank that is late.
  // `doing` is for the messages: "all_gather".
  void meet(const char* doing);

 private:
  using Clock = std::chrono::steady_clock;
  bool has_arrived(int peer) const;
  void wait_for(int peer, const char* doing);
  void check(const char* doing);
  std::string missing_ranks() const;

  std::vector<RankCounter*> counters_;
  SyncOptions options_;
  uint32_t points_ = 0; // reached by this rank; wraps
  // In this meeting. A run that is stopped as a whole does not wait meanwhile.
  Clock::duration waited_{};
  bool warned_ = false;
};

} // namespace deepspeed::comm
