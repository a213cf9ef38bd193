// One run per experiment folder.
#include "deepspeed/report/run_lock.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/report/pacific_time.h"

namespace deepspeed::report {
namespace {

std::string self_description() {
  const CivilTime now = utc_time(std::time(nullptr));
  std::array<char, 32> started{};
  std::snprintf(
      started.data(),
      started.size(),
      "%04d-%02d-%02dT%02d:%02d:%02dZ",
      now.year,
      now.month,
      now.day,
      now.hour,
      now.minute,
      now.second);
  return "host " + machine::host_name() + ", pid " +
      std::to_string(::getpid()) + ", started " + started.data();
}

} // namespace

file::FileLock lock_run(const std::string& folder) {
  const std::string path = folder + "/.lock";
  file::FileLock lock(
      path, "cannot make the lock", file::FileLock::Access::readable);
  const file::FileLock::Attempt attempt = lock.try_lock();
  if (attempt == file::FileLock::Attempt::no_locks) {
    base::log_warning(
        "this file system has no locks (" + std::string(std::strerror(errno)) +
        "): nothing keeps a second run out of " + folder +
        ", and what killed runs left there is not removed");
  }
  if (attempt == file::FileLock::Attempt::held) {
    throw base::Error(
        base::ExitCode::cannot_create,
        "another run is using this experiment folder: " + lock.holder(),
        path,
        "wait for it, stop it, or use another folder");
  }
  lock.tell(self_description());
  return lock;
}

} // namespace deepspeed::report
