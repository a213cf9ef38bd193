// Starting a process that cannot outlive the launcher.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace deepspeed::launcher {

struct ChildOptions {
  std::vector<std::string> argv; // argv[0] is the path of the program
  std::vector<std::string> environment; // all of it, "NAME=value"
  // Descriptors that become 0, 1 and 2. stdin -1: /dev/null.
  int stdin_fd = -1;
  int stdout_fd = 1;
  int stderr_fd = 2;
  std::vector<int> kept; // descriptors that stay open with their number
  std::vector<int> cores; // may run on these only; empty: as the launcher
  int memory_node = -1; // takes memory from this NUMA node only; -1: any
  int death_signal = SIGKILL; // what it gets when the calling thread ends
};

// Starts the program in a session of its own, so that a Ctrl-C at the terminal
// reaches it only through the launcher; the process id is that of its process
// group, too. The kernel ends it when the calling thread ends.
// Signals are unblocked in it. Returns when the program runs, or throws
// Error(no_input) with argv[0] if it cannot be executed.
pid_t start_child(const ChildOptions& options);

// The launcher itself: this program's own file.
std::string own_path();

// The environment of this process, "NAME=value" each.
std::vector<std::string> own_environment();

// Gives `name` a value, whether it is there or not.
void set_variable(
    std::vector<std::string>& environment,
    const std::string& name,
    const std::string& value);

// The value of `name`, or nullptr. Valid until the environment changes.
const char* find_variable(
    const std::vector<std::string>& environment,
    const std::string& name);

} // namespace deepspeed::launcher
