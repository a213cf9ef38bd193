// The ranks of one host: start, watch, stop, report, start again.
#include "deepspeed/launcher/node_job.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/random_name.h"
#include "deepspeed/launcher/child_process.h"
#include "deepspeed/launcher/failure_report.h"
#include "deepspeed/launcher/leftovers.h"
#include "deepspeed/launcher/master_port.h"
#include "deepspeed/launcher/node_message.h"
#include "deepspeed/launcher/rank_environment.h"
#include "deepspeed/launcher/resume_note.h"

namespace deepspeed::launcher {

namespace {

using base::Error;
using base::ExitCode;

constexpr const char* kLoopback = "127.0.0.1";
constexpr const char* kListenVariable = "DS_MASTER_LISTEN_FD";

std::string join(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) {
    text += (text.empty() ? "" : ",") + std::to_string(number);
  }
  return text;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ",") + name;
  }
  return text;
}

// One start of the ranks of a host.
class NodeRun {
 public:
  NodeRun(
      const NodeJob& job,
      const Machine& machine,
      OutputRelay& relay,
      SignalSource& signals)
      : job_(job),
        machine_(machine),
        relay_(relay),
        signals_(signals),
        mark_(file::random_name(32)),
        slots_(job.nodes.at(static_cast<size_t>(job.node_rank)).slots),
        shares_(share_cores(
            machine,
            static_cast<int>(slots_.size()),
            job.bind_cores,
            job.bind_core_list)),
        note_(job.resume_note) {
    check();
    adopt_orphans();
    watcher_.emplace(mark_);
  }

  int run() {
    for (int attempt = 0;; ++attempt) {
      const OutOfMemoryCounter memory;
      std::vector<Child> children = start_ranks(job_.restart_count + attempt);
      const Outcome outcome = supervise(children);
      on_beat();
      clean_up();
      if (signals_.launcher_lost()) {
        // For a launcher that was only stopped, and for whoever reads a log.
        relay_.write_line(
            "error: the launcher was silent for " +
            std::to_string(kSilenceLimit.count()) +
            " seconds, or its connection ended: it counted as lost, and the "
            "ranks of " +
            machine_.host + " were stopped");
        job_.tell_home(kReportedMessage);
      }
      if (outcome.failed < 0) {
        return outcome.exit_code;
      }
      relay_.write_line(failure_report(
          children[static_cast<size_t>(outcome.failed)], memory.kills()));
      if (job_.tell_home) {
        job_.tell_home(kReportedMessage);
      }
      if (attempt == job_.max_restarts ||
          !worth_restarting(outcome.exit_code)) {
        return outcome.exit_code;
      }
      say(LogLevel::warning,
          "starting again, restart " + std::to_string(attempt + 1) + " of " +
              std::to_string(job_.max_restarts));
    }
  }

 private:
  Outcome supervise(std::vector<Child>& children) {
    std::function<void()> beat;
    if (job_.tell_home) {
      beat = [this] { on_beat(); };
    }
    return Supervisor(children, relay_, signals_, job_.supervisor, beat).run();
  }

  // A sign of life, and what rank 0 has written since the last one: this
  // process may end before it can say so at its end.
  void on_beat() {
    if (!job_.tell_home) {
      return;
    }
    if (relay_.flushed()) {
      job_.tell_home(kAliveMessage);
    }
    if (const std::string& note = note_.read(); note != told_note_) {
      job_.tell_home(kResumeMessage + note);
      told_note_ = note;
    }
  }

  void say(LogLevel level, const std::string& text) {
    if (level >= job_.log_level) {
      constexpr std::array kNames{"debug", "info", "warning", "error"};
      relay_.write_line(
          std::string(kNames.at(static_cast<size_t>(level))) + ": " + text);
    }
  }

  void check() {
    const int ranks = static_cast<int>(slots_.size());
    if (machine_.gpus > 0 && job_.devices.empty() &&
        slots_.back() >= machine_.gpus) {
      throw Error(
          ExitCode::config,
          "slot " + std::to_string(slots_.back()) + ", but " + machine_.host +
              " has " + std::to_string(machine_.gpus) + " GPUs",
          "",
          "DS_ACCELERATOR=cpu starts the ranks without GPUs");
    }
    if (machine_.gpus == 0 && ranks > static_cast<int>(machine_.cores.size())) {
      say(LogLevel::warning,
          std::to_string(ranks) + " ranks share the " +
              std::to_string(machine_.cores.size()) + " cores of " +
              machine_.host);
    }
    const char* affinity = find_variable(job_.environment, "KMP_AFFINITY");
    if (job_.bind_cores && affinity != nullptr) {
      throw Error(
          ExitCode::config,
          std::string("KMP_AFFINITY=") + affinity +
              " binds threads against --bind_cores_to_rank",
          "KMP_AFFINITY",
          "unset KMP_AFFINITY");
    }
  }

  // After a restart ranks of the start before may still hold the port, for
  // example where their connection was lost: they are waited for.
  ReservedPort reserve_patiently(const char* address, bool restarted) {
    constexpr auto kPatience = std::chrono::seconds(30);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (bool told = false;; told = true) {
      try {
        return reserve_port(address, job_.master_port);
      } catch (const Error& error) {
        if (!restarted || std::chrono::steady_clock::now() >= deadline) {
          throw;
        }
        if (!told) {
          say(LogLevel::warning,
              std::string(error.what()) + ": waiting for up to 30 seconds");
        }
      }
      std::vector<pollfd> others = signals_.poll_entries();
      relay_.wait(others, std::chrono::milliseconds(200));
      on_beat();
      while (const auto number = signals_.next()) {
        if (*number != SIGCHLD && *number != SIGWINCH) {
          throw Error(
              ExitCode::unavailable,
              "stopped while waiting for port " +
                  std::to_string(job_.master_port),
              "",
              "");
        }
      }
    }
  }

  // The port of this start, or an empty reservation on other hosts than the
  // first.
  ReservedPort reserve(int restarts) {
    if (job_.node_rank != 0) {
      return {.port = job_.master_port};
    }
    const bool alone = job_.nodes.size() == 1 && job_.master_addr == kLoopback;
    ReservedPort port =
        reserve_patiently(alone ? kLoopback : "0.0.0.0", restarts > 0);
    if (!alone) {
      port.socket.reset(); // rank 0 listens for other hosts, too
    }
    return port;
  }

  // What all ranks of this host have in common.
  std::vector<std::string> common_environment(int restarts) {
    std::vector<std::string> environment = job_.environment;
    std::erase_if(environment, [](const std::string& entry) {
      return entry.starts_with(std::string(kListenVariable) + "=") ||
          // A torchrun around us is not where our ranks meet.
          entry.starts_with("TORCHELASTIC_USE_AGENT_STORE=");
    });
    set_variable(environment, kMarkVariable, mark_);
    set_variable(environment, "DS_RESTART_COUNT", std::to_string(restarts));
    set_variable(environment, "DS_RESUME_FILE", note_.path());
    if (!job_.job_id.empty()) {
      set_variable(environment, "DS_JOB_ID", job_.job_id);
    }
    if (machine_.gpus > 0) {
      set_variable(
          environment,
          "CUDA_VISIBLE_DEVICES",
          job_.devices.empty() ? join(slots_) : join(job_.devices));
    }
    return environment;
  }

  std::vector<Child> start_ranks(int restarts) {
    ReservedPort port = reserve(restarts);
    const auto places = rank_places(job_.nodes, job_.node_rank);
    say(LogLevel::info,
        std::to_string(places.size()) +
            (places.size() == 1 ? " rank on " : " ranks on ") + machine_.host +
            ", slots " + join(slots_) + ", master " + job_.master_addr + ":" +
            std::to_string(port.port));
    const std::vector<std::string> common = common_environment(restarts);
    const std::string log_time = start_log_folder();
    std::vector<Child> children;
    try {
      for (const RankPlace& place : places) {
        const size_t i = static_cast<size_t>(place.local_rank);
        ChildOptions options{
            .argv = rank_command(job_.program, place.local_rank),
            .environment = common,
            .cores = shares_[i].cores,
            .memory_node = shares_[i].memory_node};
        set_place(options.environment, place, job_.master_addr, port.port);
        if (job_.bind_cores ||
            find_variable(common, "OMP_NUM_THREADS") == nullptr) {
          set_variable(
              options.environment,
              "OMP_NUM_THREADS",
              std::to_string(shares_[i].threads));
        }
        if (place.rank == 0 && port.socket.is_open()) {
          options.kept = {port.socket.get()};
          set_variable(
              options.environment,
              kListenVariable,
              std::to_string(port.socket.get()));
        }
        children.push_back(start_rank(place, std::move(options), log_time));
      }
    } catch (const Error&) {
      for (const Child& child : children) {
        ::kill(-child.pid, SIGKILL);
        ::waitpid(child.pid, nullptr, 0);
      }
      throw;
    }
    return children;
  }

  // The time in the names of this start's log files.
  std::string start_log_folder() const {
    if (job_.rank_log_folder.empty()) {
      return "";
    }
    file::make_folders(
        job_.rank_log_folder, "cannot make the folder of the ranks' logs");
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    char text[32];
    std::strftime(text, sizeof text, "%Y%m%d%H%M%S", &local);
    return text;
  }

  Child start_rank(
      const RankPlace& place,
      ChildOptions options,
      const std::string& log_time) {
    Child child{
        .title = "rank " + std::to_string(place.rank),
        .host = machine_.host,
        .tail = std::make_shared<LineTail>()};
    std::vector<file::Descriptor> ours; // closed when the rank has its own
    if (!log_time.empty()) {
      child.log_file = job_.rank_log_folder + "/" + log_time + "_rank" +
          std::to_string(place.rank) + ".log";
      ours.push_back(open_log(child.log_file));
      options.stdout_fd = options.stderr_fd = ours[0].get();
    } else {
      ours = connect(place, options, child.tail);
    }
    options.stdin_fd = place.rank == 0 && job_.on_terminal ? STDIN_FILENO : -1;
    child.pid = start_child(options);
    say(LogLevel::debug,
        child.title + ": pid " + std::to_string(child.pid) + ": " +
            join_command(options.argv));
    return child;
  }

  static std::string join_command(const std::vector<std::string>& argv) {
    std::string text;
    for (const std::string& argument : argv) {
      text += (text.empty() ? "" : " ") + argument;
    }
    return text;
  }

  static file::Descriptor open_log(const std::string& path) {
    file::Descriptor file(
        file::file_system().open(path, O_WRONLY | O_CREAT | O_APPEND, 0644));
    if (!file.is_open()) {
      throw base::system_error(
          ExitCode::cannot_create, "cannot make a log file", path, errno);
    }
    return file;
  }

  // Pipes from the rank to the relay. Rank 0 gets a pseudo-terminal in place
  // of a terminal, so that it shows its progress line.
  std::vector<file::Descriptor> connect(
      const RankPlace& place,
      ChildOptions& options,
      const std::shared_ptr<LineTail>& tail) {
    std::vector<file::Descriptor> ours;
    int terminal = -1;
    for (const int sink : {STDOUT_FILENO, STDERR_FILENO}) {
      int& stream =
          sink == STDOUT_FILENO ? options.stdout_fd : options.stderr_fd;
      if (place.rank != 0 || !job_.on_terminal || ::isatty(sink) == 0) {
        Pipe pipe = make_pipe();
        stream = pipe.writer.get();
        relay_.add_pipe(std::move(pipe.reader), sink, tail);
        ours.push_back(std::move(pipe.writer));
        continue;
      }
      if (terminal < 0) {
        PseudoTerminal pair = make_terminal(sink);
        terminal = pair.slave.get();
        relay_.add_terminal(std::move(pair.master), sink, tail);
        ours.push_back(std::move(pair.slave));
      }
      stream = terminal;
    }
    return ours;
  }

  void clean_up() {
    const int orphans = end_orphans(watcher_->pid());
    if (orphans > 0) {
      say(LogLevel::warning,
          std::to_string(orphans) +
              " processes that the ranks had left behind were ended");
    }
    relay_.drain();
  }

  const NodeJob& job_;
  const Machine& machine_;
  OutputRelay& relay_;
  SignalSource& signals_;
  const std::string mark_;
  const std::vector<int> slots_;
  const std::vector<CoreShare> shares_;
  ResumeNote note_;
  std::string told_note_; // to the first launcher
  std::optional<Watcher> watcher_;
};

} // namespace

int run_node(
    const NodeJob& job,
    const Machine& machine,
    OutputRelay& relay,
    SignalSource& signals) {
  NodeRun run(job, machine, relay, signals);
  const int code = run.run();
  flush_output(relay, signals);
  return code;
}

void flush_output(OutputRelay& relay, SignalSource& signals) {
  // A launcher that is gone reads nothing; one that was stopped might.
  const auto patience = std::chrono::steady_clock::now() + kBeat;
  while (!relay.flushed() &&
         (!signals.launcher_lost() ||
          std::chrono::steady_clock::now() < patience)) {
    std::vector<pollfd> others = signals.poll_entries();
    relay.wait(others, kBeat);
    while (const auto number = signals.next()) {
      if (*number != SIGCHLD && *number != SIGWINCH) {
        return;
      }
    }
  }
}

bool worth_restarting(int exit_code) {
  return exit_code != static_cast<int>(ExitCode::usage) &&
      exit_code != static_cast<int>(ExitCode::no_input) &&
      exit_code != static_cast<int>(ExitCode::config);
}

} // namespace deepspeed::launcher
