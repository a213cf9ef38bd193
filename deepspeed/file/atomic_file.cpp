// Publishing a file: readers see the old one or the whole new one, never a
// part.
#include "deepspeed/file/atomic_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/open_file.h"

namespace deepspeed::file {
namespace {

constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr size_t kTemporaryDigits = 16;
constexpr size_t kBufferBytes = size_t{1} << 20;

// Random: processes of two containers have the same id, again and again.
std::string temporary_suffix() {
  uint64_t value = 0;
  while (::getrandom(&value, sizeof value, 0) !=
         static_cast<ssize_t>(sizeof value)) {
    if (errno != EINTR) {
      throw base::system_error(
          base::ExitCode::internal, "no randomness", "getrandom", errno);
    }
  }
  char digits[kTemporaryDigits + 1];
  std::snprintf(
      digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return std::string(kTemporaryMark) + digits;
}

bool all_of(std::string_view text, std::string_view alphabet) {
  return !text.empty() &&
      text.find_first_not_of(alphabet) == std::string_view::npos;
}

// A failed write names the file and, for a full disk, how far it came.
base::Error write_error(
    const std::string& path,
    uint64_t size,
    int saved_errno) {
  return base::system_error(
      base::ExitCode::io,
      "cannot write after " + std::to_string(size) + " bytes",
      path,
      saved_errno);
}

} // namespace

std::string parent_folder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool is_temporary_name(std::string_view name) {
  const size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string_view::npos || mark == 0) {
    return false;
  }
  const std::string_view suffix = name.substr(mark + kTemporaryMark.size());
  if (suffix.size() == kTemporaryDigits && all_of(suffix, "0123456789abcdef")) {
    return true;
  }
  // PID-COUNT, as older versions wrote.
  const size_t dash = suffix.find('-');
  return dash != std::string_view::npos &&
      all_of(suffix.substr(0, dash), "0123456789") &&
      all_of(suffix.substr(dash + 1), "0123456789");
}

void remove_temporary_files(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator(folder, ignored)) {
    if (is_temporary_name(entry.path().filename().string()) &&
        std::filesystem::is_regular_file(entry.symlink_status(ignored))) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    throw base::system_error(
        base::ExitCode::io, "cannot open folder", path, errno);
  }
  const int result = ::fsync(fd);
  const int saved_errno = errno;
  ::close(fd);
  // Some file systems do not sync folders, and say so in several ways.
  if (result != 0 && saved_errno != EINVAL && saved_errno != ENOTSUP &&
      saved_errno != ENOSYS) {
    throw base::system_error(
        base::ExitCode::io, "cannot sync folder", path, saved_errno);
  }
}

AtomicFile::AtomicFile(std::string path, base::ContentHash* hash, mode_t mode)
    : path_(std::move(path)), hash_(hash) {
  do {
    temporary_ = path_ + temporary_suffix();
    fd_ = ::open(
        temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) {
    throw base::system_error(
        base::ExitCode::cannot_create, "cannot create", path_, errno);
  }
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write_all(const std::byte* data, size_t n) {
  while (n > 0) {
    const ssize_t written = ::write(fd_, data, n);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      throw write_error(path_, size_, errno);
    }
    data += written;
    n -= static_cast<size_t>(written);
  }
}

void AtomicFile::flush() {
  write_all(reinterpret_cast<const std::byte*>(buffer_.data()), buffer_.size());
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    flush();
  }
  if (bytes.size() >= kBufferBytes) {
    write_all(bytes.data(), bytes.size());
  } else {
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  size_ += bytes.size();
  if (hash_ != nullptr) {
    hash_->update(bytes);
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) {
    throw write_error(path_, size_, errno);
  }
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int saved_errno = errno;
    ::unlink(temporary_.c_str());
    throw write_error(path_, size_, saved_errno);
  }
  sync_folder(parent_folder(path_));
}

void write_file_atomically(
    const std::string& path,
    std::string_view text,
    mode_t mode) {
  AtomicFile file(path, nullptr, mode);
  file.write(text);
  file.commit();
}

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const int fd = open_to_read(path);
  std::string text;
  char block[65536];
  while (true) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      const int saved_errno = errno;
      ::close(fd);
      throw base::system_error(
          base::ExitCode::no_input, "cannot read", path, saved_errno);
    }
    if (n == 0) {
      break;
    }
    text.append(block, static_cast<size_t>(n));
    if (text.size() > max_bytes) {
      ::close(fd);
      throw base::Error(
          base::ExitCode::data,
          "file is larger than " + std::to_string(max_bytes) + " bytes",
          path,
          "");
    }
  }
  ::close(fd);
  return text;
}

} // namespace deepspeed::file
