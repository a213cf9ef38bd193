// What the library asks of file systems.
#include "deepspeed/file/file_system.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/file/descriptor.h"

namespace deepspeed::file {
namespace {

std::atomic<FileSystem*> replacement{nullptr};

} // namespace

int FileSystem::open(const std::string& path, int flags, mode_t mode) {
  return ::open(path.c_str(), flags | O_CLOEXEC, mode);
}

ssize_t FileSystem::read(int fd, std::span<char> bytes) {
  return ::read(fd, bytes.data(), bytes.size());
}

ssize_t FileSystem::write(int fd, std::span<const std::byte> bytes) {
  return ::write(fd, bytes.data(), bytes.size());
}

// Cut after it is written, so that nobody reads an empty file.
int FileSystem::replace_text(int fd, std::string_view text) {
  const auto size = static_cast<ssize_t>(text.size());
  return ::pwrite(fd, text.data(), text.size(), 0) == size
      ? ::ftruncate(fd, size)
      : -1;
}

int FileSystem::lock(int fd) {
  return ::flock(fd, LOCK_EX | LOCK_NB);
}

int FileSystem::sync(int fd) {
  return ::fsync(fd);
}

int FileSystem::sync_folder(const std::string& path) {
  const Descriptor folder(open(path, O_RDONLY | O_DIRECTORY));
  return folder.is_open() ? ::fsync(folder.get()) : -1;
}

int FileSystem::rename(const std::string& from, const std::string& to) {
  return ::rename(from.c_str(), to.c_str());
}

int FileSystem::exchange(const std::string& a, const std::string& b) {
  return static_cast<int>(::syscall(
      SYS_renameat2,
      AT_FDCWD,
      a.c_str(),
      AT_FDCWD,
      b.c_str(),
      RENAME_EXCHANGE));
}

int FileSystem::remove(const std::string& path) {
  return ::remove(path.c_str());
}

int FileSystem::remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  errno = error.value();
  return error ? -1 : 0;
}

int FileSystem::make_folder(const std::string& path) {
  return ::mkdir(path.c_str(), 0777);
}

int FileSystem::set_mode(const std::string& path, mode_t mode) {
  return ::chmod(path.c_str(), mode);
}

std::filesystem::space_info FileSystem::space(
    const std::string& path,
    std::error_code& error) {
  return std::filesystem::space(path, error);
}

FileSystem& file_system() {
  static FileSystem kernel;
  FileSystem* const other = replacement;
  return other != nullptr ? *other : kernel;
}

FileSystemScope::FileSystemScope(FileSystem& other)
    : before_(replacement.exchange(&other)) {}

FileSystemScope::~FileSystemScope() {
  replacement = before_;
}

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = file_system().write(fd, bytes);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(n));
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool write_all(int fd, std::string_view text) {
  return write_all(fd, std::as_bytes(std::span(text)));
}

void sync_folder(const std::string& path) {
  // Some file systems do not sync folders, and say so in several ways.
  if (file_system().sync_folder(path) != 0 && errno != EINVAL &&
      errno != ENOTSUP && errno != ENOSYS) {
    throw base::system_error(
        base::ExitCode::io, "cannot sync folder", path, errno);
  }
}

std::error_code try_make_folders(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  fs::path folder;
  for (const fs::path& part : fs::path(path)) {
    folder /= part;
    if (fs::is_directory(folder, ignored)) {
      continue;
    }
    const int error = file_system().make_folder(folder) == 0 ? 0 : errno;
    if (error == 0) {
      // A disk that fails. Where it cannot be asked there is nothing to do.
      if (file_system().sync_folder(parent_folder(folder)) != 0 &&
          errno == EIO) {
        return {EIO, std::system_category()};
      }
    } else if (error != EEXIST || !fs::is_directory(folder, ignored)) {
      return {error == EEXIST ? ENOTDIR : error, std::system_category()};
    }
  }
  return path.empty() ? std::make_error_code(std::errc::invalid_argument)
                      : std::error_code();
}

void make_folders(const std::string& path, const char* action) {
  if (const std::error_code error = try_make_folders(path)) {
    throw base::system_error(
        base::ExitCode::cannot_create, action, path, error.value());
  }
}

std::string parent_folder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

} // namespace deepspeed::file
