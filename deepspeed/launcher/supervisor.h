// Watches processes that belong together: all go on, or all stop.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/launcher/output_relay.h"
#include "deepspeed/launcher/pipe.h"
#include "deepspeed/launcher/signal_source.h"
#include "deepspeed/launcher/silence.h"

namespace deepspeed::launcher {

// A rank of this host, or the connection to another host.
struct Child {
  std::string title; // "rank 3", "host w1"
  std::string host;
  pid_t pid = 0; // and process group
  std::shared_ptr<LineTail> tail; // its last lines
  std::string log_file = {}; // where its output went instead, or ""
  // Another host: signals go as letters through this pipe, after what waits in
  // `outbox`. Not open for a rank of this host.
  file::Descriptor control = {};
  std::string outbox = {};
  // Another host: its deepspeed process says that it is alive every kBeat.
  bool beats = false;
  bool reported = false; // it has told its own failure
  bool lost = false; // it was not heard any more, and given up
  Silence silence = {};
  uint64_t bytes_heard = 0; // of tail->bytes_read
  // Slurm's srun. It hands SIGUSR1 on to the ranks, and kills them without
  // a word for SIGTERM, SIGHUP and SIGQUIT.
  bool srun = false;

  // After its end.
  bool ended = false;
  int status = 0; // as waitpid() gives it

  bool remote() const {
    return control.is_open();
  }
  // 128 + signal, or its exit code; 69 if the connection to a host broke.
  int exit_code() const;
};

// What became of them.
struct Outcome {
  int exit_code = 0;
  int failed = -1; // index of the child that failed first, or -1
  bool stopped = false; // a signal to the launcher asked for it
};

struct SupervisorOptions {
  std::chrono::duration<double> failure_grace{5};
  std::chrono::duration<double> stop_grace{30};
};

// The rules:
// - A child that ends with neither 0 nor 75 has failed. SIGTERM goes to all
//   others at once, SIGKILL after `failure_grace`. A rank that ends with 69
//   (it lost a peer) gets half a second to find one with a better reason.
// - SIGTERM, SIGINT, SIGHUP, SIGQUIT to the launcher: each child gets it once,
//   SIGKILL after `stop_grace`. A second SIGINT kills at once. Then the exit
//   code is 75 or 0 if every child says so, else 128 + signal.
// - SIGUSR1 and SIGUSR2 are passed on. SIGTSTP stops and SIGCONT continues all.
//   On other hosts kPause and kContinue do that.
// - kLauncherLost: SIGTERM, SIGKILL after at most two seconds.
// - A host that beats and is then silent for kSilenceLimit has failed: its ssh
//   is killed.
// - With srun the ranks get SIGUSR1 in place of SIGTERM, SIGHUP and SIGQUIT,
//   and what should kill them is SIGTERM to srun.
// One thread: the one that started the children.
class Supervisor {
 public:
  Supervisor(
      std::vector<Child>& children,
      OutputRelay& relay,
      SignalSource& signals,
      const SupervisorOptions& options,
      std::function<void()> on_beat = nullptr); // called every kBeat

  // Until every child has ended.
  Outcome run();

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  void on_signal(int number);
  void request_stop(int number, Seconds grace);
  void suspend();
  void reap();
  void judge(const std::vector<size_t>& ended);
  void name_if_killed(const Child& child);
  void stop_after_failure();
  // Now, and as long as processes have to stop by themselves.
  Clock::time_point end_of(Seconds grace) const;
  void on_time();
  void beat();
  bool beating() const;
  void kill_all();
  void send(Child& child, int number);
  void write_outboxes();
  void send_all(int number);
  size_t running() const;
  std::chrono::milliseconds time_to_wait() const;
  Outcome outcome() const;

  std::vector<Child>& children_;
  OutputRelay& relay_;
  SignalSource& signals_;
  const SupervisorOptions options_;
  const std::function<void()> on_beat_;
  Clock::time_point next_beat_ = Clock::now();
  int requested_ = 0; // the signal that asked for the end
  int failed_ = -1; // index of the child to blame
  bool stopping_ = false; // because of the failure
  std::optional<Clock::time_point> settle_at_; // end of the wait for a reason
  std::optional<Clock::time_point> kill_at_;
  std::optional<Clock::time_point> give_up_at_; // after SIGKILL
};

// "was killed by signal 9 (SIGKILL)", "ended with exit code 3".
std::string describe_end(const Child& child);

} // namespace deepspeed::launcher
