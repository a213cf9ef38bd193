// One run per experiment folder.
#pragma once

#include <string>

namespace deepspeed::report {

// An flock on FOLDER/.lock that tells host, pid and start time of its holder.
// The kernel gives it back when the process ends, however it ends. Movable.
// A file system without locks gives a warning, and no protection.
class RunLock {
 public:
  RunLock() = default;
  // Error(cannot_create) if the file cannot be made, or names the holder if
  // another process has the lock.
  explicit RunLock(const std::string& folder);
  ~RunLock();
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;

 private:
  int fd_ = -1;
};

} // namespace deepspeed::report
