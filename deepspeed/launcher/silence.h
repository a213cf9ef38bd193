// How long the other end of a connection has said nothing.
#pragma once

#include <algorithm>
#include <chrono>

namespace deepspeed::launcher {

// Both ends say something this often, so that a network that was cut, which
// closes no connection, is noticed as well.
inline constexpr std::chrono::seconds kBeat{1};
// An end that was silent for so long is lost. With the two seconds that ranks
// then have for their end, all is over within ten.
inline constexpr std::chrono::seconds kSilenceLimit{7};
// The same while the job is paused (Ctrl-Z): the launcher cannot say anything.
inline constexpr std::chrono::seconds kPauseLimit{3600};

// Counts only while this process runs itself: of a pause between two looks
// (SIGSTOP, a virtual machine that was moved) two beats count, in which what
// has come meanwhile is read.
class Silence {
 public:
  using Clock = std::chrono::steady_clock;

  void heard() {
    silent_ = {};
    looked_at_ = Clock::now();
  }
  // To be called about every kBeat.
  Clock::duration look() {
    const auto now = Clock::now();
    silent_ += std::min<Clock::duration>(now - looked_at_, 2 * kBeat);
    looked_at_ = now;
    return silent_;
  }

 private:
  Clock::time_point looked_at_ = Clock::now();
  Clock::duration silent_{};
};

} // namespace deepspeed::launcher
