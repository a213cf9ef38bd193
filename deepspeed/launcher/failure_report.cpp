// What the user reads when a rank has failed.
#include "deepspeed/launcher/failure_report.h"

#include <sys/wait.h>

#include <fstream>
#include <sstream>

#include "deepspeed/launcher/node_job.h"

namespace deepspeed::launcher {

namespace {

// The number behind `key` in a file of "key number" lines; -1 without it.
long read_counter(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  long value = 0;
  while (file >> name >> value) {
    if (name == key) {
      return value;
    }
  }
  return -1;
}

// cgroup v2: one line "0::/path"; v1: "4:memory:/path".
long count_memory_kills() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    long kills = -1;
    if (controllers.empty()) {
      kills =
          read_counter("/sys/fs/cgroup" + path + "/memory.events", "oom_kill");
    } else if (controllers == "memory") {
      kills = read_counter(
          "/sys/fs/cgroup/memory" + path + "/memory.oom_control", "oom_kill");
    }
    if (kills >= 0) {
      return kills;
    }
  }
  return std::max(0L, read_counter("/proc/vmstat", "oom_kill"));
}

std::string signal_hint(int number, long memory_kills) {
  switch (number) {
    case SIGKILL:
      return memory_kills > 0
          ? "the kernel killed it, out of memory: use a smaller micro batch, a "
            "higher ZeRO stage, or fewer ranks"
          : "probably out of memory: look at dmesg and memory.events, or at "
            "the limits of your batch system";
    case SIGBUS:
      return "a mapped file became shorter, or /dev/shm or the disk is full: "
             "df -h";
    case SIGILL:
      return "the program, or a library of it, was built for another processor";
    case SIGSEGV:
    case SIGABRT:
    case SIGFPE:
      return "a fault of the program: its last lines say more, or a debugger "
             "(ulimit -c unlimited; coredumpctl)";
    case SIGTERM:
    case SIGINT:
    case SIGHUP:
      return "somebody else sent it the signal: the launcher had not";
    default:
      return "";
  }
}

std::string code_hint(int code, long memory_kills) {
  if (code > 128 && code < 128 + 65) {
    return "128 + " + std::to_string(code - 128) +
        ": a process that it had started ended by " + signal_name(code - 128) +
        (code == 128 + SIGKILL ? "; " + signal_hint(SIGKILL, memory_kills)
                               : "");
  }
  if (code == 127) {
    return "127 mostly means: a command, or a shared library, was not found";
  }
  return "";
}

// A mistake of the user, which the program has just explained on the screen.
// Ranks often share it, and rank 0 tells of what another one has found: the
// first to end need not be the one to blame.
bool explained(const Child& child) {
  const bool told = child.remote()
      ? child.reported
      : child.log_file.empty() && !child.tail->lines().empty();
  return told && !WIFSIGNALED(child.status) &&
      !worth_restarting(child.exit_code());
}

std::string explained_end(const Child& child) {
  return " was the first to end, with exit code " +
      std::to_string(child.exit_code()) + "; the reason stands above\n";
}

std::string last_lines(const Child& child) {
  LineTail tail;
  if (child.log_file.empty()) {
    tail = *child.tail;
  } else {
    std::ifstream file(child.log_file, std::ios::binary);
    file.seekg(0, std::ios::end);
    constexpr std::streamoff kEnough = 64 << 10;
    const std::streamoff size = file.tellg();
    file.seekg(std::max<std::streamoff>(0, size - kEnough));
    std::ostringstream text;
    text << file.rdbuf();
    tail.add(text.str());
  }
  if (tail.lines().empty()) {
    return "  it printed nothing\n";
  }
  std::string text = "  its last lines";
  text += child.log_file.empty() ? ":\n" : " (" + child.log_file + "):\n";
  for (const std::string& line : tail.lines()) {
    // Of a progress line the last state.
    const size_t last = line.find_last_of('\r', line.size() - 2);
    text += "    " +
        (last == std::string::npos ? line : line.substr(last + 1)) + "\n";
  }
  return text;
}

} // namespace

OutOfMemoryCounter::OutOfMemoryCounter() : before_(count_memory_kills()) {}

long OutOfMemoryCounter::kills() const {
  return count_memory_kills() - before_;
}

std::string failure_report(const Child& child, long memory_kills) {
  if (child.remote()) {
    if (explained(child)) {
      return "error: " + child.title + explained_end(child);
    }
    return "error: " + child.title + " " + describe_end(child) +
        (child.reported
             ? "\n  its own report stands above\n"
             : "\n  its deepspeed process there could not say why\n");
  }
  const std::string who = "error: " + child.title + " (host " + child.host +
      ", pid " + std::to_string(child.pid) + ")";
  if (explained(child)) {
    return who + explained_end(child);
  }
  const std::string report =
      who + " " + describe_end(child) + "\n" + last_lines(child);
  const std::string hint = WIFSIGNALED(child.status)
      ? signal_hint(WTERMSIG(child.status), memory_kills)
      : code_hint(WEXITSTATUS(child.status), memory_kills);
  return report + (hint.empty() ? "" : "  hint: " + hint + "\n");
}

} // namespace deepspeed::launcher
