// What tells the launcher to stop: signals, and on other nodes the commands of
// the first launcher.
#pragma once

#include <poll.h>
#include <signal.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/launcher/pipe.h"
#include "deepspeed/launcher/silence.h"

namespace deepspeed::launcher {

// Not signals of the system: commands to a node from the launcher that started
// it.
enum : int {
  kStopAfterFailure = 1000, // another node has failed
  kLauncherLost = 1001, // the launcher is gone, or not heard any more
  kAlive = 1002, // says nothing but that the launcher is there
  kPause = 1003, // Ctrl-Z
  kContinue = 1004,
};

// The letter that stands for a signal or a command on the way to another node,
// and back (0 = no such letter).
char command_letter(int signal_number);
int signal_of_letter(char letter);

// "SIGTERM"; "signal 42" if it has no name.
std::string signal_name(int signal_number);

// Blocks the signals that the launcher deals with and hands them out one by
// one. A signal that was ignored when the program started (nohup) stays
// ignored. SIGPIPE is ignored while this lives. One thread, one object.
class SignalSource {
 public:
  SignalSource();
  ~SignalSource();
  SignalSource(const SignalSource&) = delete;
  SignalSource& operator=(const SignalSource&) = delete;

  // Takes over a pipe that commands come from. Its end is kLauncherLost, and so
  // is a silence of kSilenceLimit (kPauseLimit after kPause): next() has to be
  // called about every kBeat.
  void listen_to(file::Descriptor commands);
  // For poll().
  std::vector<pollfd> poll_entries() const;
  // The next one that has arrived.
  std::optional<int> next();
  bool launcher_lost() const {
    return lost_;
  }

 private:
  void read_commands();
  void lose();

  sigset_t handled_;
  sigset_t before_;
  struct sigaction pipe_before_ {};
  file::Descriptor signals_;
  file::Descriptor commands_;
  Silence silence_; // of the launcher
  bool paused_ = false;
  bool lost_ = false;
  std::deque<int> arrived_;
};

} // namespace deepspeed::launcher
