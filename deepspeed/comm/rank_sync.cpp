// Arrival counters with futexes, and what a rank does when a peer is late.
#include "deepspeed/comm/rank_sync.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/pause.h"

namespace deepspeed::comm {
namespace {

constexpr int kSpins = 200; // of some 10 to 50 ns each
constexpr std::chrono::milliseconds kCheckInterval{200};
constexpr std::chrono::seconds kLateAfter{15};

// Not FUTEX_PRIVATE: the word is shared between processes.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  const timespec limit{0, std::chrono::nanoseconds(kCheckInterval).count()};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, value, &limit, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

std::string seconds_text(std::chrono::steady_clock::duration duration) {
  using Tenths = std::chrono::duration<int64_t, std::deci>;
  const int64_t tenths = std::chrono::duration_cast<Tenths>(duration).count();
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

} // namespace

RankSync::RankSync(std::vector<RankCounter*> counters, SyncOptions options)
    : counters_(std::move(counters)), options_(std::move(options)) {}

bool RankSync::has_arrived(int peer) const {
  const uint32_t arrived =
      counters_[peer]->arrived.load(std::memory_order_acquire);
  return static_cast<int32_t>(arrived - points_) >= 0;
}

void RankSync::meet(const char* doing) {
  ++points_;
  RankCounter& own = *counters_[options_.rank];
  // A sleeper first raises `sleepers`, then looks at `arrived`; this rank
  // writes and looks in the other order. Both are sequentially consistent, so
  // one of them sees the other and no wake-up is lost.
  own.arrived.store(points_, std::memory_order_seq_cst);
  if (own.sleepers.load(std::memory_order_seq_cst) > 0) {
    wake_all(own.arrived);
  }
  waited_ = {};
  warned_ = false;
  for (int peer = 0; peer < static_cast<int>(counters_.size()); ++peer) {
    for (int i = 0; i < kSpins && !has_arrived(peer); ++i) {
      base::pause_briefly();
    }
    if (!has_arrived(peer)) {
      wait_for(peer, doing);
    }
  }
}

void RankSync::wait_for(int peer, const char* doing) {
  RankCounter& counter = *counters_[peer];
  counter.sleepers.fetch_add(1, std::memory_order_seq_cst);
  Clock::time_point last_check = Clock::now();
  while (true) {
    const uint32_t seen = counter.arrived.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - points_) >= 0) {
      break;
    }
    sleep_while(counter.arrived, seen);
    const Clock::duration slept = Clock::now() - last_check;
    if (slept >= kCheckInterval) {
      waited_ += std::min<Clock::duration>(slept, 2 * kCheckInterval);
      last_check += slept;
      check(doing);
    }
  }
  counter.sleepers.fetch_sub(1, std::memory_order_seq_cst);
}

void RankSync::check(const char* doing) {
  // All ranks: the one that is waited for may itself wait for one that died.
  for (int rank = 0; rank < static_cast<int>(counters_.size()); ++rank) {
    const PeerProcess& process = options_.processes[rank];
    // In this order: to end after the last arrival is no fault.
    if (state_of(process) == ProcessState::gone && !has_arrived(rank)) {
      throw base::Error(
          base::ExitCode::unavailable,
          "rank " + std::to_string(rank) + " (process " +
              std::to_string(process.pid) + ") has ended while rank " +
              std::to_string(options_.rank) + " waited for it in " + doing,
          "",
          "its own last lines say why; a run can be started again from its "
          "last checkpoint");
    }
  }
  const bool is_over = waited_ >= options_.timeout;
  const bool is_late =
      waited_ >= std::min<Clock::duration>(kLateAfter, options_.timeout / 2);
  if (!is_over && (warned_ || !is_late)) {
    return;
  }
  const std::string missing = missing_ranks();
  if (missing.empty()) {
    return; // they came in this moment
  }
  if (is_over) {
    throw base::Error(
        base::ExitCode::unavailable,
        std::string(doing) + ": after " + seconds_text(waited_) +
            " still waiting for " + missing,
        "",
        "it may be stopped, or stuck, or doing something else; "
        "DEEPSPEED_TIMEOUT (minutes) sets how long to wait");
  }
  warned_ = true;
  base::log_warning(
      "rank " + std::to_string(options_.rank) + " has waited " +
      seconds_text(waited_) + " in " + doing + " for " + missing);
}

std::string RankSync::missing_ranks() const {
  std::string text;
  for (int rank = 0; rank < static_cast<int>(counters_.size()); ++rank) {
    if (has_arrived(rank)) {
      continue;
    }
    const PeerProcess& process = options_.processes[rank];
    text += (text.empty() ? "rank " : ", rank ") + std::to_string(rank) +
        " (process " + std::to_string(process.pid) +
        (state_of(process) == ProcessState::stopped ? ", stopped)" : ")");
  }
  return text;
}

} // namespace deepspeed::comm
