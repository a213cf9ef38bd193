// What tells the launcher to stop: signals, and on other nodes the commands of
// the first launcher.
#include "deepspeed/launcher/signal_source.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace deepspeed::launcher {

namespace {

constexpr std::array kHandled{
    SIGINT,
    SIGTERM,
    SIGHUP,
    SIGQUIT,
    SIGUSR1,
    SIGUSR2,
    SIGTSTP,
    SIGWINCH,
    SIGCHLD};

constexpr std::pair<char, int> kLetters[] = {
    {'I', SIGINT},
    {'T', SIGTERM},
    {'H', SIGHUP},
    {'Q', SIGQUIT},
    {'1', SIGUSR1},
    {'2', SIGUSR2},
    {'F', kStopAfterFailure},
    {'A', kAlive},
    {'Z', kPause},
    {'C', kContinue}};

} // namespace

char command_letter(int signal_number) {
  for (const auto& [letter, number] : kLetters) {
    if (number == signal_number) {
      return letter;
    }
  }
  return '\0';
}

int signal_of_letter(char letter) {
  for (const auto& [other, number] : kLetters) {
    if (other == letter) {
      return number;
    }
  }
  return 0;
}

std::string signal_name(int signal_number) {
  const char* name = ::sigabbrev_np(signal_number);
  return name == nullptr ? "signal " + std::to_string(signal_number)
                         : std::string("SIG") + name;
}

SignalSource::SignalSource() {
  ::sigemptyset(&handled_);
  for (const int number : kHandled) {
    struct sigaction action {};
    ::sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN || number == SIGCHLD) {
      ::sigaddset(&handled_, number);
    }
  }
  // An ignored SIGCHLD would lose the exit codes of the ranks.
  ::signal(SIGCHLD, SIG_DFL);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &pipe_before_);
  ::sigprocmask(SIG_BLOCK, &handled_, &before_);
  signals_ =
      file::Descriptor(::signalfd(-1, &handled_, SFD_CLOEXEC | SFD_NONBLOCK));
}

SignalSource::~SignalSource() {
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  ::sigaction(SIGPIPE, &pipe_before_, nullptr);
}

void SignalSource::listen_to(file::Descriptor commands) {
  commands_ = std::move(commands);
  set_nonblocking(commands_.get());
  silence_.heard();
}

std::vector<pollfd> SignalSource::poll_entries() const {
  return {{signals_.get(), POLLIN, 0}, {commands_.get(), POLLIN, 0}};
}

std::optional<int> SignalSource::next() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    arrived_.push_back(static_cast<int>(info.ssi_signo));
  }
  read_commands();
  if (arrived_.empty()) {
    return std::nullopt;
  }
  const int first = arrived_.front();
  arrived_.pop_front();
  return first;
}

void SignalSource::read_commands() {
  std::array<char, 64> letters;
  while (commands_.is_open()) {
    const ssize_t n = ::read(commands_.get(), letters.data(), letters.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0 && errno == EAGAIN) {
      if (silence_.look() > (paused_ ? kPauseLimit : kSilenceLimit)) {
        lose();
      }
      return;
    }
    if (n <= 0) {
      lose();
      return;
    }
    silence_.heard();
    for (ssize_t i = 0; i < n; ++i) {
      const int number = signal_of_letter(letters[static_cast<size_t>(i)]);
      if (number == kPause || number == kContinue) {
        paused_ = number == kPause;
      }
      if (number != 0 && number != kAlive) {
        arrived_.push_back(number);
      }
    }
  }
}

void SignalSource::lose() {
  arrived_.push_back(kLauncherLost);
  lost_ = true;
  commands_.reset();
}

} // namespace deepspeed::launcher
