// One program makes a token cache, the others wait for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_lock.h"

namespace deepspeed::text {

// Held as long as it lives. Whoever waits for it says who holds it, and gives
// up with Error(stopped) when `stopped` says so, with Error(unavailable) when
// the holder has shown nothing new for `patience`. Error(cannot_create) if
// there can be no lock file. A file system without locks gives a warning:
// AtomicFile keeps the cache whole, two programs only do the work twice.
class CacheLock {
 public:
  CacheLock(
      const std::string& path,
      std::chrono::milliseconds patience,
      const std::function<bool()>& stopped);

  // Whether nobody else can be making this cache.
  bool held() const {
    return lock_.held();
  }
  // Tells those who wait how far the work is, at most once in a second.
  void show(uint64_t done, uint64_t total);

 private:
  file::FileLock lock_;
  std::chrono::steady_clock::time_point shown_;
};

// What a signal that asks to stop becomes, before there is anything to save.
base::Error stopped_error(const std::string& where);

} // namespace deepspeed::text
