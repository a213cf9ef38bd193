// Nothing that a job has started outlives its launcher.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::launcher {

// In the environment of all processes of one launcher: what marks them as its
// own even when their parents are gone.
inline constexpr const char* kMarkVariable = "DS_LAUNCHER_ID";

// A small process of its own that waits for the end of the launcher. If that
// was killed, it kills all processes that carry the mark: also those that the
// kernel does not end with their parent, such as the children of a rank.
class Watcher {
 public:
  explicit Watcher(const std::string& mark);
  // Nothing is left to be killed: ends it.
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  pid_t pid() const {
    return pid_;
  }

 private:
  file::Descriptor alive_; // closes with the launcher
  pid_t pid_ = 0;
};

// Makes this process the parent of what its descendants leave behind.
void adopt_orphans();

// Ends all processes that this one has adopted: SIGTERM, SIGKILL after a
// second. Returns how many there were; `except` (the watcher) lives.
int end_orphans(pid_t except);

// Processes, not this one, whose environment holds DS_LAUNCHER_ID=`mark`.
std::vector<pid_t> find_marked(const std::string& mark);

} // namespace deepspeed::launcher
