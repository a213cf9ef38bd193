// Starting a process that cannot outlive the launcher.
#include "deepspeed/launcher/child_process.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/pipe.h"

namespace deepspeed::launcher {

namespace {

// What the child says when it cannot become the program.
struct Failure {
  int saved_errno = 0;
  char action[60] = {};
};

// Exists between fork and exec only.
class NewChild {
 public:
  NewChild(const ChildOptions& options, int report_fd, pid_t parent)
      : options_(options), report_fd_(report_fd), parent_(parent) {}

  [[noreturn]] void become_program() {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, options_.death_signal);
    if (::getppid() != parent_) {
      ::_exit(1); // the launcher died before the line above
    }
    unblock_signals();
    bind();
    connect_streams();
    exec();
  }

 private:
  void require(bool good, const char* action) {
    if (good) {
      return;
    }
    Failure failure{.saved_errno = errno};
    std::strncpy(failure.action, action, sizeof failure.action - 1);
    // A pipe takes so few bytes at once.
    [[maybe_unused]] const ssize_t n =
        ::write(report_fd_, &failure, sizeof failure);
    ::_exit(127);
  }

  void unblock_signals() {
    ::signal(SIGPIPE, SIG_DFL); // the launcher ignores it
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
  }

  void bind() {
    if (!options_.cores.empty()) {
      const int highest = options_.cores.back();
      cpu_set_t* set = CPU_ALLOC(highest + 1);
      const size_t size = CPU_ALLOC_SIZE(highest + 1);
      CPU_ZERO_S(size, set);
      for (const int core : options_.cores) {
        CPU_SET_S(core, size, set);
      }
      require(::sched_setaffinity(0, size, set) == 0, "cannot bind to cores");
    }
    if (options_.memory_node >= 0) {
      std::array<unsigned long, 16> nodes{}; // 1024 NUMA nodes, as the kernel
      constexpr int bits = 8 * sizeof(unsigned long);
      nodes.at(static_cast<size_t>(options_.memory_node / bits)) |= 1UL
          << (options_.memory_node % bits);
      require(
          ::syscall(
              SYS_set_mempolicy,
              MPOL_BIND,
              nodes.data(),
              static_cast<unsigned long>(nodes.size() * bits)) == 0,
          "cannot bind memory to a NUMA node");
    }
  }

  void connect_streams() {
    int in = options_.stdin_fd;
    if (in < 0) {
      in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    // Copies above 2 first, so that no dup2 below overwrites a source.
    const int sources[] = {in, options_.stdout_fd, options_.stderr_fd};
    int copies[3];
    for (int i = 0; i < 3; ++i) {
      copies[i] = ::fcntl(sources[i], F_DUPFD_CLOEXEC, 3);
      require(copies[i] >= 0, "cannot connect the streams");
    }
    for (int i = 0; i < 3; ++i) {
      require(::dup2(copies[i], i) == i, "cannot connect the streams");
    }
    for (const int fd : options_.kept) {
      require(::fcntl(fd, F_SETFD, 0) == 0, "cannot hand a socket on");
    }
  }

  [[noreturn]] void exec() {
    std::vector<char*> argv;
    for (const std::string& argument : options_.argv) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    std::vector<char*> environment;
    for (const std::string& entry : options_.environment) {
      environment.push_back(const_cast<char*>(entry.c_str()));
    }
    environment.push_back(nullptr);
    ::execve(argv[0], argv.data(), environment.data());
    require(false, "cannot start");
    ::_exit(127);
  }

  const ChildOptions& options_;
  const int report_fd_;
  const pid_t parent_;
};

} // namespace

pid_t start_child(const ChildOptions& options) {
  Pipe report = make_pipe();
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) {
    throw base::system_error(
        base::ExitCode::internal, "cannot fork", "", errno);
  }
  if (pid == 0) {
    NewChild(options, report.writer.get(), parent).become_program();
  }
  report.writer.reset();
  Failure failure;
  // The pipe closes by itself when the program runs.
  ::fcntl(report.reader.get(), F_SETFL, 0); // wait for it
  ssize_t n = 0;
  do {
    n = ::read(report.reader.get(), &failure, sizeof failure);
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof failure)) {
    base::Error error = base::system_error(
        base::ExitCode::no_input,
        failure.action,
        options.argv[0],
        failure.saved_errno);
    if (failure.saved_errno == ENOEXEC) {
      throw base::Error(
          error.code(),
          error.what(),
          options.argv[0],
          "a script needs a first line like #!/bin/sh");
    }
    throw error;
  }
  return pid;
}

std::string own_path() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    throw base::Error(
        base::ExitCode::internal,
        "cannot read /proc/self/exe: " + error.message(),
        "",
        "mount /proc");
  }
  return path.string();
}

std::vector<std::string> own_environment() {
  std::vector<std::string> environment;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    environment.emplace_back(*entry);
  }
  return environment;
}

void set_variable(
    std::vector<std::string>& environment,
    const std::string& name,
    const std::string& value) {
  std::erase_if(environment, [&](const std::string& entry) {
    return entry.starts_with(name + "=");
  });
  environment.push_back(name + "=" + value);
}

const char* find_variable(
    const std::vector<std::string>& environment,
    const std::string& name) {
  for (const std::string& entry : environment) {
    if (entry.starts_with(name + "=")) {
      return entry.c_str() + name.size() + 1;
    }
  }
  return nullptr;
}

} // namespace deepspeed::launcher
