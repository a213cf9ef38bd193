// Watches processes that belong together: all go on, or all stop.
#include "deepspeed/launcher/supervisor.h"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

namespace {

constexpr int kStopped = static_cast<int>(base::ExitCode::stopped);
constexpr int kUnavailable = static_cast<int>(base::ExitCode::unavailable);
constexpr auto kSettle = std::chrono::milliseconds(500);
constexpr std::chrono::duration<double> kLostGrace{2};
// Nothing can end a process that waits for a broken disk or network share.
constexpr auto kGiveUp = std::chrono::seconds(10);
// Nodes get this much longer, since they stop their own ranks.
constexpr std::chrono::duration<double> kRemoteExtra{3};

bool ended_well(const Child& child) {
  const int code = child.exit_code();
  return code == 0 || code == kStopped;
}

bool connection_broke(const Child& child) {
  constexpr int kSshFailed = 255;
  return child.remote() && WIFEXITED(child.status) &&
      WEXITSTATUS(child.status) == kSshFailed;
}

// How good a reason the end of a child is for the end of the job.
int blame(const Child& child) {
  const int code = child.exit_code();
  if (ended_well(child)) {
    return 0;
  }
  if (child.remote() && (code == 128 + SIGTERM || code == 128 + SIGINT)) {
    return 1; // it was stopped, for the failure of another
  }
  if (code == kUnavailable && !child.lost && !connection_broke(child)) {
    return 2; // it lost a peer
  }
  return WIFSIGNALED(child.status) ? 4 : 3;
}

} // namespace

int Child::exit_code() const {
  if (lost || connection_broke(*this)) {
    return kUnavailable;
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string describe_end(const Child& child) {
  if (child.lost) {
    return "was silent for " + std::to_string(kSilenceLimit.count()) +
        " seconds: it, its network or its deepspeed process is down";
  }
  if (WIFSIGNALED(child.status)) {
    const int number = WTERMSIG(child.status);
    return "was killed by signal " + std::to_string(number) + " (" +
        signal_name(number) + ")";
  }
  if (connection_broke(child)) {
    return "lost its connection";
  }
  return "ended with exit code " + std::to_string(WEXITSTATUS(child.status));
}

Supervisor::Supervisor(
    std::vector<Child>& children,
    OutputRelay& relay,
    SignalSource& signals,
    const SupervisorOptions& options,
    std::function<void()> on_beat)
    : children_(children),
      relay_(relay),
      signals_(signals),
      options_(options),
      on_beat_(std::move(on_beat)) {}

Outcome Supervisor::run() {
  while (running() > 0) {
    std::vector<pollfd> others = signals_.poll_entries();
    for (const Child& child : children_) {
      const bool waits = !child.ended && !child.outbox.empty();
      others.push_back({waits ? child.control.get() : -1, POLLOUT, 0});
    }
    relay_.wait(others, time_to_wait());
    while (const auto number = signals_.next()) {
      on_signal(*number);
    }
    reap();
    on_time();
    beat();
    write_outboxes();
    if (give_up_at_ && Clock::now() >= *give_up_at_) {
      break;
    }
  }
  return outcome();
}

void Supervisor::on_signal(int number) {
  switch (number) {
    case SIGCHLD:
      return; // reap() looks anyway
    case SIGWINCH:
      relay_.terminal_resized();
      return;
    case SIGTSTP:
      suspend();
      return;
    case kPause:
      send_all(SIGSTOP);
      return;
    case kContinue:
      send_all(SIGCONT);
      return;
    case SIGUSR1:
    case SIGUSR2:
      send_all(number);
      return;
    case kLauncherLost:
      request_stop(SIGTERM, std::min(kLostGrace, options_.failure_grace));
      return;
    case kStopAfterFailure:
      request_stop(SIGTERM, options_.failure_grace);
      return;
    default:
      request_stop(number, options_.stop_grace);
  }
}

// Each signal is passed on once; a second SIGINT kills, and so does the first
// one during a failure. A later deadline never replaces an earlier one.
void Supervisor::request_stop(int number, Seconds grace) {
  if (number == SIGINT && (requested_ == SIGINT || stopping_)) {
    kill_all();
    return;
  }
  const Clock::time_point deadline = end_of(grace);
  if (!kill_at_ || deadline < *kill_at_) {
    kill_at_ = deadline;
  }
  if (number == requested_ || stopping_) {
    return;
  }
  requested_ = number;
  send_all(number);
}

void Supervisor::suspend() {
  const bool remote = children_.front().remote();
  send_all(remote ? kPause : SIGSTOP);
  write_outboxes(); // at once: ssh runs on, this process does not
  ::raise(SIGSTOP);
  send_all(remote ? kContinue : SIGCONT);
}

void Supervisor::reap() {
  std::vector<size_t> ended;
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == EINTR) {
      continue;
    }
    if (pid <= 0) {
      break;
    }
    for (size_t i = 0; i < children_.size(); ++i) {
      if (children_[i].pid == pid && !children_[i].ended) {
        children_[i].ended = true;
        children_[i].status = status;
        ended.push_back(i);
      }
    } // else a process that a rank had left behind
  }
  if (!ended.empty()) {
    judge(ended);
  }
}

void Supervisor::judge(const std::vector<size_t>& ended) {
  if (requested_ != 0) { // whatever they say, they were asked to end
    for (const size_t i : ended) {
      name_if_killed(children_[i]);
    }
    return;
  }
  for (const size_t i : ended) {
    // What a rank says after SIGTERM is no reason; a node may still have been
    // busy with its own failure.
    if (stopping_ && !children_[i].remote()) {
      continue;
    }
    const int before =
        failed_ < 0 ? 0 : blame(children_[static_cast<size_t>(failed_)]);
    if (blame(children_[i]) > before) {
      failed_ = static_cast<int>(i);
    }
  }
  if (failed_ < 0 || stopping_) {
    return;
  }
  if (blame(children_[static_cast<size_t>(failed_)]) > 2) {
    stop_after_failure();
  } else if (!settle_at_) {
    settle_at_ = Clock::now() + kSettle;
  }
}

// By somebody else than us: it cannot have told that it had not saved.
void Supervisor::name_if_killed(const Child& child) {
  if (WIFSIGNALED(child.status) && WTERMSIG(child.status) != requested_ &&
      !give_up_at_) {
    relay_.write_line(
        "warning: " + child.title + " " + describe_end(child) +
        " while it was to stop: what was not saved yet is lost");
  }
}

void Supervisor::stop_after_failure() {
  stopping_ = true;
  settle_at_.reset();
  kill_at_ = end_of(options_.failure_grace);
  if (running() > 0) {
    const Child& failed = children_[static_cast<size_t>(failed_)];
    relay_.write_line(
        "error: " + failed.title + " " + describe_end(failed) +
        "; stopping the others");
  }
  send_all(children_.front().remote() ? kStopAfterFailure : SIGTERM);
}

Supervisor::Clock::time_point Supervisor::end_of(Seconds grace) const {
  const Seconds extra = children_.front().remote() ? kRemoteExtra : Seconds(0);
  return Clock::now() +
      std::chrono::duration_cast<Clock::duration>(grace + extra);
}

void Supervisor::on_time() {
  const auto now = Clock::now();
  if (settle_at_ && now >= *settle_at_ && !stopping_) {
    stop_after_failure();
  }
  if (kill_at_ && now >= *kill_at_) {
    for (const Child& child : children_) {
      if (!child.ended) {
        relay_.write_line(
            "warning: " + child.title + " (pid " + std::to_string(child.pid) +
            ") did not stop in time and is killed");
      }
    }
    kill_all();
  }
}

bool Supervisor::beating() const {
  return on_beat_ != nullptr || children_.front().remote();
}

void Supervisor::beat() {
  if (!beating() || Clock::now() < next_beat_) {
    return;
  }
  next_beat_ = Clock::now() + kBeat;
  if (on_beat_) {
    on_beat_();
  }
  for (Child& child : children_) {
    if (child.ended || child.lost || !child.remote()) {
      continue;
    }
    if (child.outbox.empty()) {
      child.outbox += command_letter(kAlive);
    }
    // While our own output is not read, we do not read that of others.
    if (child.bytes_heard != child.tail->bytes_read || relay_.full()) {
      child.bytes_heard = child.tail->bytes_read;
      child.silence.heard();
    } else if (child.beats && child.silence.look() > kSilenceLimit) {
      child.lost = true;
      ::kill(-child.pid, SIGKILL);
    }
  }
}

void Supervisor::kill_all() {
  kill_at_.reset();
  give_up_at_ = Clock::now() + kGiveUp;
  for (const Child& child : children_) {
    if (!child.ended) {
      // srun kills its ranks then; killed itself, it would leave them running.
      ::kill(-child.pid, child.srun ? SIGTERM : SIGKILL);
    }
  }
}

void Supervisor::send_all(int number) {
  for (Child& child : children_) {
    if (!child.ended) {
      send(child, number);
    }
  }
}

void Supervisor::send(Child& child, int number) {
  if (child.remote()) {
    if (const char letter = command_letter(number)) {
      child.outbox += letter;
    }
    return;
  }
  const bool kills = number == SIGTERM || number == SIGHUP || number == SIGQUIT;
  ::kill(-child.pid, child.srun && kills ? SIGUSR1 : number);
  if (number == SIGTERM) {
    ::kill(-child.pid, SIGCONT); // a stopped process would not see it
  }
}

void Supervisor::write_outboxes() {
  for (Child& child : children_) {
    if (child.ended || child.outbox.empty()) {
      continue;
    }
    const ssize_t n =
        ::write(child.control.get(), child.outbox.data(), child.outbox.size());
    if (n > 0) {
      child.outbox.erase(0, static_cast<size_t>(n));
    } else if (errno != EAGAIN && errno != EINTR) {
      child.outbox.clear(); // the connection is gone: ssh will end
    }
  }
}

size_t Supervisor::running() const {
  return static_cast<size_t>(
      std::count_if(children_.begin(), children_.end(), [](const Child& child) {
        return !child.ended;
      }));
}

std::chrono::milliseconds Supervisor::time_to_wait() const {
  std::optional<Clock::time_point> next;
  const std::optional<Clock::time_point> beat_at =
      beating() ? std::optional(next_beat_) : std::nullopt;
  for (const auto& time : {settle_at_, kill_at_, give_up_at_, beat_at}) {
    if (time && (!next || *time < *next)) {
      next = time;
    }
  }
  if (!next) {
    return std::chrono::milliseconds(-1);
  }
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

Outcome Supervisor::outcome() const {
  if (failed_ >= 0) {
    const Child& failed = children_[static_cast<size_t>(failed_)];
    return {.exit_code = failed.exit_code(), .failed = failed_};
  }
  Outcome outcome{.stopped = requested_ != 0};
  for (const Child& child : children_) {
    if (!child.ended || !ended_well(child)) {
      outcome.exit_code = 128 + requested_;
      return outcome;
    }
    outcome.exit_code = std::max(outcome.exit_code, child.exit_code());
  }
  return outcome;
}

} // namespace deepspeed::launcher
