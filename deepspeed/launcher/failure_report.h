// What the user reads when a rank has failed.
#pragma once

#include <string>

#include "deepspeed/launcher/supervisor.h"

namespace deepspeed::launcher {

// Counts how often the kernel has killed a process for want of memory: in the
// control group of the launcher if it has one, else on the machine.
class OutOfMemoryCounter {
 public:
  OutOfMemoryCounter();
  // Kills since the constructor.
  long kills() const;

 private:
  long before_;
};

// "error: rank 3 (host w1, pid 77) was killed by signal 9 (SIGKILL)", its last
// lines (not after 64, 66 and 78, mistakes that stand right above), and a hint.
// `memory_kills` is what OutOfMemoryCounter says.
std::string failure_report(const Child& child, long memory_kills);

} // namespace deepspeed::launcher
