// One run per experiment folder.
#include "deepspeed/report/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/report/pacific_time.h"

namespace deepspeed::report {
namespace {

using base::Error;
using base::ExitCode;

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
      std::to_string(::getpid()) + ", started " + started.data() + "\n";
}

// The first line of the lock file, printable characters only.
std::string holder_of(int fd) {
  std::array<char, 256> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  std::string holder;
  for (ssize_t i = 0; i < n && text[i] != '\n'; ++i) {
    holder += text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
  }
  return holder.empty() ? "another process" : holder;
}

// Readable is enough for a lock: another user's file may be no more than that.
// Neither through a link nor into a pipe.
int open_lock(const std::string& path) {
  constexpr int kFlags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | kFlags, 0666);
  if (fd < 0 && errno == EACCES) {
    fd = ::open(path.c_str(), O_RDONLY | kFlags);
  }
  if (fd < 0 && errno != ELOOP) {
    throw base::system_error(
        ExitCode::cannot_create, "cannot make the lock", path, errno);
  }
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    if (fd >= 0) {
      ::close(fd);
    }
    throw Error(
        ExitCode::cannot_create,
        "cannot make the lock: not a regular file, or a symbolic link",
        path,
        "move it away");
  }
  return fd;
}

// EBADF: NFS locks no file that is open for reading.
bool has_no_locks(int error) {
  return error == ENOSYS || error == ENOLCK || error == EOPNOTSUPP ||
      error == EBADF || error == EINVAL;
}

} // namespace

RunLock::RunLock(const std::string& folder) {
  const std::string path = folder + "/.lock";
  fd_ = open_lock(path);
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int saved_errno = errno;
    if (saved_errno == EINTR) {
      continue;
    }
    if (has_no_locks(saved_errno)) {
      base::log_warning(
          "this file system has no locks (" +
          std::string(std::strerror(saved_errno)) +
          "): nothing keeps a second run out of " + folder);
      break;
    }
    const std::string holder = holder_of(fd_);
    ::close(std::exchange(fd_, -1));
    if (saved_errno != EWOULDBLOCK) {
      throw base::system_error(
          ExitCode::cannot_create, "cannot lock", path, saved_errno);
    }
    throw Error(
        ExitCode::cannot_create,
        "another run is using this experiment folder: " + holder,
        path,
        "wait for it, stop it, or use another folder");
  }
  // Only for people: the lock holds without the text.
  const std::string text = self_description();
  if (::ftruncate(fd_, 0) == 0) {
    [[maybe_unused]] const ssize_t n =
        ::pwrite(fd_, text.data(), text.size(), 0);
  }
}

RunLock::~RunLock() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

RunLock::RunLock(RunLock&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

} // namespace deepspeed::report
