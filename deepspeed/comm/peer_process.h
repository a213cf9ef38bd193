// Another process of the run, and whether it is still alive.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace deepspeed::comm {

enum class ProcessState { running, stopped, gone };

// A process by its number and the time of its start: numbers come back.
struct PeerProcess {
  pid_t pid = 0;
  uint64_t start_time = 0; // clock ticks after the boot, from /proc
  // Equal for processes that see each other under their numbers: the boot of
  // the kernel, the namespace of process numbers, the user.
  std::string scope;

  // "PID START SCOPE" and back. Throws base::Error(unavailable) for another
  // text: it came from another rank.
  std::string to_text() const;
  static PeerProcess from_text(const std::string& text);

  // This process.
  static PeerProcess self();
};

// A zombie counts as gone. Only for a process of the own scope.
ProcessState state_of(const PeerProcess& process);

} // namespace deepspeed::comm
