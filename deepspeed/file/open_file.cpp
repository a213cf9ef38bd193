// Opening a file that somebody else may have put there: a pipe, a device or a
// link in its place neither blocks nor leads elsewhere.
#include "deepspeed/file/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"

namespace deepspeed::file {
namespace {

constexpr const char* kMoveAway = "move it away, or give another path";

// What a shell passes for <(command), and /dev/stdin.
bool is_descriptor(const std::string& path) {
  return path == "/dev/stdin" || path.starts_with("/dev/fd/") ||
      path.starts_with("/proc/");
}

bool is_null_device(const struct stat& info) {
  return S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 3);
}

std::string kind_of(mode_t mode) {
  return S_ISDIR(mode) ? "a folder"
      : S_ISFIFO(mode) ? "a pipe"
      : S_ISSOCK(mode) ? "a socket"
                       : "a device";
}

} // namespace

Descriptor open_to_read(const std::string& path) {
  // Without O_NONBLOCK a pipe that nobody writes to would block.
  const bool given = is_descriptor(path);
  Descriptor file(
      file_system().open(path, O_RDONLY | (given ? 0 : O_NONBLOCK)));
  if (!file.is_open()) {
    if (errno == ENXIO) {
      throw base::Error(
          base::ExitCode::no_input,
          "cannot read: a socket, not a regular file",
          path,
          kMoveAway);
    }
    throw base::system_error(
        base::ExitCode::no_input, "cannot read", path, errno);
  }
  struct stat info {};
  const bool known = ::fstat(file.get(), &info) == 0;
  if (known && S_ISDIR(info.st_mode)) {
    throw base::Error(
        base::ExitCode::no_input,
        "cannot read: Is a directory, not a regular file",
        path,
        "");
  }
  if (!given && (!known || !S_ISREG(info.st_mode)) && !is_null_device(info)) {
    throw base::Error(
        base::ExitCode::no_input,
        "cannot read: " + kind_of(info.st_mode) + ", not a regular file",
        path,
        kMoveAway);
  }
  return file;
}

Descriptor open_to_append(const std::string& path) {
  Descriptor file(file_system().open(
      path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK));
  if (!file.is_open() && errno == ELOOP) {
    throw base::Error(
        base::ExitCode::cannot_create,
        "a symbolic link, which is not written through",
        path,
        kMoveAway);
  }
  struct stat info {};
  if (file.is_open() &&
      (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode))) {
    throw base::Error(
        base::ExitCode::cannot_create,
        "cannot open: " + kind_of(info.st_mode) + ", not a regular file",
        path,
        kMoveAway);
  }
  if (!file.is_open()) {
    throw base::system_error(
        base::ExitCode::cannot_create, "cannot open", path, errno);
  }
  return file;
}

} // namespace deepspeed::file
