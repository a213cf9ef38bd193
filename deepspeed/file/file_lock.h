// A file that one process at a time may hold, and that tells who does.
#pragma once

#include <string>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::file {

// An flock. The kernel gives it back when the process ends, however it ends,
// or when the object goes. Movable, not thread-safe.
class FileLock {
 public:
  enum class Attempt { locked, held, no_locks };
  // Another user's file may be readable only, which is enough for a lock, but
  // not to tell().
  enum class Access { told, readable };

  FileLock() = default;
  // Opens or makes the file, and does not lock it yet. Neither through a link
  // nor into a pipe. Error(cannot_create), which begins with `action`.
  FileLock(std::string path, const char* action, Access access = Access::told);

  // Does not wait. `no_locks`: this file system has none, errno says how it
  // said so, and nobody keeps anybody out. Error(cannot_create).
  Attempt try_lock();
  // Whether nobody else can have it: only then may leftovers be removed.
  bool held() const {
    return file_.is_open() && held_;
  }
  // The first line of the file, printable characters only. "another process"
  // if there is none.
  std::string holder() const;
  // Replaces that line. Only for people: the lock holds without it, so nothing
  // is said if it cannot be written.
  void tell(const std::string& holder);

 private:
  std::string path_;
  Descriptor file_;
  bool held_ = false; // never so without locks
};

} // namespace deepspeed::file
