// A file that one process at a time may hold, and that tells who does.
#include "deepspeed/file/file_lock.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"

namespace deepspeed::file {
namespace {

// EBADF: NFS locks no file that is open for reading.
bool has_no_locks(int error) {
  return error == ENOSYS || error == ENOLCK || error == EOPNOTSUPP ||
      error == EBADF || error == EINVAL;
}

} // namespace

FileLock::FileLock(std::string path, const char* action, Access access)
    : path_(std::move(path)) {
  constexpr int kFlags = O_NOFOLLOW | O_NONBLOCK;
  file_ = Descriptor(file_system().open(path_, O_RDWR | O_CREAT | kFlags));
  if (!file_.is_open() && errno == EACCES && access == Access::readable) {
    file_ = Descriptor(file_system().open(path_, O_RDONLY | kFlags));
  }
  if (!file_.is_open() && errno != ELOOP) {
    throw base::system_error(
        base::ExitCode::cannot_create, action, path_, errno);
  }
  struct stat info {};
  if (!file_.is_open() || ::fstat(file_.get(), &info) != 0 ||
      !S_ISREG(info.st_mode)) {
    throw base::Error(
        base::ExitCode::cannot_create,
        std::string(action) + ": not a regular file, or a symbolic link",
        path_,
        "move it away");
  }
}

FileLock::Attempt FileLock::try_lock() {
  while (file_system().lock(file_.get()) != 0) {
    if (errno == EWOULDBLOCK) {
      return Attempt::held;
    }
    if (has_no_locks(errno)) {
      return Attempt::no_locks;
    }
    if (errno != EINTR) {
      throw base::system_error(
          base::ExitCode::cannot_create, "cannot lock", path_, errno);
    }
  }
  held_ = true;
  return Attempt::locked;
}

std::string FileLock::holder() const {
  std::array<char, 256> text{};
  const ssize_t n = ::pread(file_.get(), text.data(), text.size(), 0);
  std::string holder;
  for (ssize_t i = 0; i < n && text[i] != '\n'; ++i) {
    holder += text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
  }
  return holder.empty() ? "another process" : holder;
}

void FileLock::tell(const std::string& holder) {
  file_system().replace_text(file_.get(), holder + "\n");
}

} // namespace deepspeed::file
