// A job on several hosts, over ssh.
#include "deepspeed/launcher/ssh_launch.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/base/shell_word.h"
#include "deepspeed/launcher/child_process.h"
#include "deepspeed/launcher/failure_report.h"
#include "deepspeed/launcher/host_address.h"
#include "deepspeed/launcher/node_agent.h"
#include "deepspeed/launcher/node_message.h"

namespace deepspeed::launcher {

namespace {

using Clock = std::chrono::steady_clock;
using base::Error;
using base::ExitCode;

constexpr auto kPatience = std::chrono::seconds(10); // for all hosts together
// A restart waits so long for hosts that are down, and so long between tries.
constexpr auto kRestartPatience = std::chrono::minutes(10);
constexpr auto kBetweenTries = std::chrono::seconds(2);

// 128 + a signal that asks for the end, or 0.
int stop_asked(SignalSource& signals) {
  while (const auto number = signals.next()) {
    if (*number == SIGINT || *number == SIGTERM || *number == SIGHUP ||
        *number == SIGQUIT) {
      return 128 + *number;
    }
  }
  return 0;
}

// One start of the whole job.
class Hosts {
 public:
  Hosts(
      const NodeJob& job,
      const SshOptions& options,
      OutputRelay& relay,
      SignalSource& signals)
      : job_(job), options_(options), relay_(relay), signals_(signals) {
    states_.resize(job.nodes.size());
    for (size_t i = 0; i < job.nodes.size(); ++i) {
      connect(i);
    }
  }
  // ssh ends, and with it what it has started.
  ~Hosts() {
    for (const Child& child : children_) {
      if (!child.ended) {
        ::kill(-child.pid, SIGKILL);
        while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
        }
      }
    }
  }
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;

  // 0, or 128 + the signal that ended the wait. Error(unavailable).
  int wait_until_ready() {
    for (;;) {
      reap();
      bool all_ready = true;
      bool any_ended = false;
      for (size_t i = 0; i < children_.size(); ++i) {
        all_ready = all_ready && !states_[i].address.empty();
        any_ended = any_ended || children_[i].ended;
      }
      const bool late =
          !options_.wait_for_hosts && Clock::now() >= started_ + kPatience;
      if (all_ready && !any_ended) {
        return 0;
      }
      if (late || (any_ended && settled())) {
        throw unavailable();
      }
      beat();
      std::vector<pollfd> others = signals_.poll_entries();
      relay_.wait(others, std::chrono::milliseconds(50));
      if (const int code = stop_asked(signals_); code != 0) {
        return code;
      }
    }
  }

  Outcome run() {
    std::vector<HostAddress> addresses;
    for (const State& state : states_) {
      addresses.push_back(parse_host_address(state.address));
    }
    const std::string master =
        job_.master_addr.empty() ? master_address(addresses) : job_.master_addr;
    for (size_t i = 0; i < children_.size(); ++i) {
      NodeMessage message{job_, std::filesystem::current_path().string()};
      message.job.node_rank = static_cast<int>(i);
      message.job.master_addr = master;
      children_[i].outbox += encode_message(message);
    }
    return Supervisor(children_, relay_, signals_, job_.supervisor).run();
  }

  const Child& child(int index) const {
    return children_[static_cast<size_t>(index)];
  }
  const std::string& resume_note() const {
    return states_.front().resume_note;
  }

 private:
  struct State {
    std::string address; // a HostAddress, when it is ready
    std::string resume_note;
  };

  void connect(size_t i) {
    const std::string& host = job_.nodes[i].host;
    Pipe in = make_pipe();
    Pipe out = make_pipe();
    Pipe err = make_pipe();
    Child child{
        .title = "host " + host,
        .host = host,
        .tail = std::make_shared<LineTail>()};
    ::fcntl(in.reader.get(), F_SETFL, 0); // ssh's end blocks, ours does not
    set_nonblocking(in.writer.get());
    child.pid = start_child(
        {.argv = ssh_command(host),
         .environment = own_environment(),
         .stdin_fd = in.reader.get(),
         .stdout_fd = out.writer.get(),
         .stderr_fd = err.writer.get()});
    child.control = std::move(in.writer);
    relay_.add_pipe(
        std::move(out.reader),
        STDOUT_FILENO,
        child.tail,
        [this, i](std::string_view message) { on_message(i, message); });
    relay_.add_pipe(std::move(err.reader), STDERR_FILENO, child.tail);
    children_.push_back(std::move(child));
  }

  std::vector<std::string> ssh_command(const std::string& host) const {
    const std::string ssh = find_in_path("ssh");
    if (ssh.empty()) {
      throw Error(
          ExitCode::unavailable,
          "no ssh in PATH",
          "",
          "install it (openssh-client), or start each node with --no_ssh");
    }
    // A dead host is noticed after three times five seconds.
    std::vector<std::string> command{
        ssh, "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5"};
    if (!options_.wait_for_hosts) {
      command.insert(command.end(), {"-o", "ConnectTimeout=10"});
    }
    if (options_.port != 0) {
      command.insert(command.end(), {"-p", std::to_string(options_.port)});
    }
    command.insert(
        command.end(), options_.arguments.begin(), options_.arguments.end());
    command.insert(
        command.end(),
        {"--", host, base::shell_word(own_path()) + " " + kAgentFlag});
    return command;
  }

  void on_message(size_t i, std::string_view message) {
    const std::string_view ready = kReadyMessage;
    const std::string_view resume = kResumeMessage;
    if (message == kAliveMessage) {
      children_[i].beats = true;
    } else if (message == kReportedMessage) {
      children_[i].reported = true;
    } else if (message.starts_with(ready)) {
      states_[i].address = message.substr(ready.size());
    } else if (message.starts_with(resume)) {
      states_[i].resume_note = message.substr(resume.size());
    }
  }

  // The hosts that are ready wait for the others.
  void beat() {
    if (Clock::now() < next_beat_) {
      return;
    }
    next_beat_ = Clock::now() + kBeat;
    const char letter = command_letter(kAlive);
    for (const Child& child : children_) {
      if (!child.ended) {
        // What does not fit into the pipe does not matter.
        [[maybe_unused]] const ssize_t n =
            ::write(child.control.get(), &letter, 1);
      }
    }
  }

  void reap() {
    for (Child& child : children_) {
      if (!child.ended &&
          ::waitpid(child.pid, &child.status, WNOHANG) == child.pid) {
        child.ended = true;
        first_end_ = first_end_.value_or(Clock::now());
      }
    }
  }

  // After one host has failed, the others get a second to say what they have
  // to say, so that one table names all of them.
  bool settled() const {
    return Clock::now() >= *first_end_ + std::chrono::seconds(1) ||
        std::all_of(
               children_.begin(), children_.end(), [&](const Child& child) {
                 const auto i = static_cast<size_t>(&child - &children_[0]);
                 return child.ended || !states_[i].address.empty();
               });
  }

  Error unavailable() {
    relay_.drain(); // the reasons
    flush_output(relay_, signals_);
    std::string table;
    for (size_t i = 0; i < children_.size(); ++i) {
      if (const std::string reason = failure_of(i); !reason.empty()) {
        table +=
            (table.empty() ? "" : "\n  ") + job_.nodes[i].host + ": " + reason;
      }
    }
    return Error(
        ExitCode::unavailable,
        "not all hosts can be used",
        table,
        "try: ssh -o BatchMode=yes HOST true");
  }

  // "" if the host is ready.
  std::string failure_of(size_t i) const {
    const Child& child = children_[i];
    if (!child.ended) {
      const bool late =
          !options_.wait_for_hosts && Clock::now() >= started_ + kPatience;
      return !states_[i].address.empty() ? ""
          : late                         ? "no answer in 10 seconds"
                 : "had not answered yet, and was not waited for";
    }
    const auto& lines = child.tail->lines();
    if (WIFEXITED(child.status) && WEXITSTATUS(child.status) == 127) {
      return "no " + own_path() + " on that host";
    }
    return lines.empty() ? describe_end(child) : lines.back();
  }

  const NodeJob& job_;
  const SshOptions& options_;
  OutputRelay& relay_;
  SignalSource& signals_;
  std::vector<Child> children_;
  std::vector<State> states_; // of the child with the same index
  const Clock::time_point started_ = Clock::now();
  Clock::time_point next_beat_ = started_;
  std::optional<Clock::time_point> first_end_;
};

// Waits for the hosts; a restart does so for kRestartPatience. 0, or 128 + a
// signal.
int connect_hosts(
    std::optional<Hosts>& hosts,
    const NodeJob& job,
    const SshOptions& options,
    OutputRelay& relay,
    SignalSource& signals) {
  const auto deadline = Clock::now() + kRestartPatience;
  for (bool told = false;; told = true) {
    hosts.emplace(job, options, relay, signals);
    try {
      return hosts->wait_until_ready();
    } catch (const Error& error) {
      if (job.restart_count == 0 || Clock::now() >= deadline) {
        throw;
      }
      if (!told) {
        relay.write_line(
            std::string("warning: ") + error.what() +
            ", trying for 10 minutes\n  " + error.where());
      }
    }
    hosts.reset();
    const auto next = Clock::now() + kBetweenTries;
    while (Clock::now() < next) {
      std::vector<pollfd> others = signals.poll_entries();
      relay.wait(others, std::chrono::milliseconds(100));
      if (const int code = stop_asked(signals); code != 0) {
        return code;
      }
    }
  }
}

} // namespace

int run_over_ssh(
    NodeJob job,
    const SshOptions& options,
    OutputRelay& relay,
    SignalSource& signals) {
  for (int attempt = 0;; ++attempt) {
    std::optional<Hosts> hosts;
    if (const int code = connect_hosts(hosts, job, options, relay, signals);
        code != 0) {
      return code;
    }
    const Outcome outcome = hosts->run();
    relay.drain();
    const bool again = outcome.failed >= 0 && attempt < job.max_restarts &&
        worth_restarting(outcome.exit_code);
    if (outcome.failed >= 0) {
      relay.write_line(failure_report(hosts->child(outcome.failed), 0));
    }
    if (!again) {
      flush_output(relay, signals);
      return outcome.exit_code;
    }
    relay.write_line(
        "warning: starting again, restart " + std::to_string(attempt + 1) +
        " of " + std::to_string(job.max_restarts));
    job.restart_count = attempt + 1;
    if (!hosts->resume_note().empty()) {
      job.resume_note = hosts->resume_note();
    }
  }
}

} // namespace deepspeed::launcher
