// What /proc tells about the processes of the other ranks.
#include "deepspeed/comm/peer_process.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

struct Stat {
  char state = 'X'; // gone
  uint64_t start_time = 0;
};

// Fields 3 and 22 of /proc/PID/stat, see proc(5). The name of the program,
// field 2, may hold anything; it ends at the last parenthesis.
Stat read_stat(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  Stat stat;
  if (!std::getline(file, line)) {
    return stat;
  }
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  fields >> stat.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) {
    fields >> skipped;
  }
  fields >> stat.start_time;
  return stat;
}

} // namespace

std::string PeerProcess::to_text() const {
  return std::to_string(pid) + " " + std::to_string(start_time) + " " + scope;
}

PeerProcess PeerProcess::from_text(const std::string& text) {
  PeerProcess process;
  std::istringstream fields(text);
  fields >> process.pid >> process.start_time >> process.scope;
  if (!fields) {
    throw base::Error(
        base::ExitCode::unavailable,
        "a rank describes its process as '" + text + "'",
        "",
        "start all ranks with the same version of the program");
  }
  return process;
}

PeerProcess PeerProcess::self() {
  PeerProcess process;
  process.pid = ::getpid();
  process.start_time = read_stat(process.pid).start_time;
  std::ifstream boot_file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(boot_file, boot);
  struct stat name_space = {};
  ::stat("/proc/self/ns/pid", &name_space);
  process.scope = boot + "/" + std::to_string(name_space.st_ino) + "/" +
      std::to_string(::geteuid());
  return process;
}

ProcessState state_of(const PeerProcess& process) {
  const Stat stat = read_stat(process.pid);
  if (stat.state == 'X' || stat.state == 'Z' ||
      stat.start_time != process.start_time) {
    return ProcessState::gone;
  }
  const bool stopped = stat.state == 'T' || stat.state == 't';
  return stopped ? ProcessState::stopped : ProcessState::running;
}

} // namespace deepspeed::comm
