// Stopping a run from outside: finish the step, save, exit.
#include "deepspeed/machine/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string_view>

namespace deepspeed::machine {
namespace {

std::atomic<int> stop_requested{0};
static_assert(std::atomic<int>::is_always_lock_free);
std::atomic<bool> speaks{true};

void say(std::string_view text) {
  if (!speaks) {
    return;
  }
  [[maybe_unused]] const ssize_t n =
      ::write(STDERR_FILENO, text.data(), text.size());
}

// Only async-signal-safe calls: an atomic, write and _exit.
void on_signal(int signal) {
  const int saved_errno = errno;
  int none = 0;
  if (stop_requested.compare_exchange_strong(none, signal)) {
    say(signal == SIGINT
            ? "\nstopping: this step is to be finished and saved "
              "(Ctrl-C again: end at once, without saving)\n"
            : "\nstopping: this step is to be finished and saved\n");
  } else if (signal == SIGINT) {
    say("\nended at once: nothing was saved after the last checkpoint\n");
    ::_exit(128 + SIGINT);
  }
  errno = saved_errno;
}

} // namespace

void install_stop_signals(bool speak) {
  speaks = speak;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    ::sigaction(signal, &action, nullptr);
  }
  // A limit on file sizes (ulimit -f) is to fail a write, not to kill the run.
  ::signal(SIGXFSZ, SIG_IGN);
}

int stop_signal() {
  return stop_requested.load();
}

const char* signal_name(int signal) {
  switch (signal) {
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "another signal";
  }
}

} // namespace deepspeed::machine
