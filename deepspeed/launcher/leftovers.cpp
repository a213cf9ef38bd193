// Nothing that a job has started outlives its launcher.
#include "deepspeed/launcher/leftovers.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <thread>

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/pipe.h"

namespace deepspeed::launcher {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  DIR* folder = ::opendir("/proc");
  if (folder == nullptr) {
    return pids;
  }
  while (const dirent* entry = ::readdir(folder)) {
    const int pid = std::atoi(entry->d_name);
    if (pid > 0) {
      pids.push_back(pid);
    }
  }
  ::closedir(folder);
  return pids;
}

// What can be read: a process may go meanwhile, for which an iterator of the
// file's buffer would throw.
std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "PID (NAME) STATE PARENT ...", where NAME may hold anything.
pid_t parent_of(pid_t pid) {
  const std::string line = read_all("/proc/" + std::to_string(pid) + "/stat");
  const size_t end = line.rfind(')');
  return end == std::string::npos || line.size() < end + 4
      ? 0
      : std::atoi(line.c_str() + end + 4);
}

void kill_marked_until_none(const std::string& mark) {
  const auto deadline = Clock::now() + 5s;
  for (;;) {
    const std::vector<pid_t> pids = find_marked(mark);
    if (pids.empty() || Clock::now() > deadline) {
      return;
    }
    for (const pid_t pid : pids) {
      ::kill(pid, SIGKILL);
    }
    std::this_thread::sleep_for(5ms);
  }
}

// What the watcher does. It holds none of the launcher's descriptors: a reader
// of its output must see the end of it.
[[noreturn]] void watch(int alive_fd, const std::string& mark) {
  ::setsid();
  ::prctl(PR_SET_NAME, "ds_watcher");
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::dup2(alive_fd, 0);
  ::close_range(1, ~0U, 0);
  pollfd alive{0, POLLIN, 0};
  while (::poll(&alive, 1, -1) < 0 && errno == EINTR) {
  }
  kill_marked_until_none(mark);
  ::_exit(0);
}

} // namespace

Watcher::Watcher(const std::string& mark) {
  Pipe pipe = make_pipe();
  pid_ = ::fork();
  if (pid_ < 0) {
    throw base::system_error(
        base::ExitCode::internal, "cannot fork", "", errno);
  }
  if (pid_ == 0) {
    pipe.writer.reset();
    watch(pipe.reader.get(), mark);
  }
  alive_ = std::move(pipe.writer);
}

Watcher::~Watcher() {
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void adopt_orphans() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

int end_orphans(pid_t except) {
  const auto start = Clock::now();
  std::vector<pid_t> seen;
  while (Clock::now() < start + 3s) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    bool any = false;
    for (const pid_t pid : all_processes()) {
      if (pid == except || parent_of(pid) != ::getpid()) {
        continue;
      }
      any = true;
      const bool known = std::count(seen.begin(), seen.end(), pid) > 0;
      if (!known) {
        seen.push_back(pid);
        ::kill(pid, SIGTERM);
        ::kill(pid, SIGCONT);
      } else if (Clock::now() > start + 1s) {
        ::kill(pid, SIGKILL);
      }
    }
    if (!any) {
      break;
    }
    std::this_thread::sleep_for(5ms);
  }
  return static_cast<int>(seen.size());
}

std::vector<pid_t> find_marked(const std::string& mark) {
  const std::string entry = std::string(kMarkVariable) + "=" + mark;
  std::vector<pid_t> found;
  for (const pid_t pid : all_processes()) {
    if (pid == ::getpid()) {
      continue;
    }
    const std::string environment =
        '\0' + read_all("/proc/" + std::to_string(pid) + "/environ");
    if (environment.find('\0' + entry + '\0') != std::string::npos) {
      found.push_back(pid);
    }
  }
  return found;
}

} // namespace deepspeed::launcher
