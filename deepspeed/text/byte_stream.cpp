// Bytes of a text file in bounded memory.
#include "deepspeed/text/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "deepspeed/base/error.h"
#include "deepspeed/file/descriptor.h"
#include "deepspeed/file/file_system.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

FileStamp checked_stamp(const std::string& path, const struct stat& info) {
  if (!S_ISREG(info.st_mode)) {
    throw Error(
        ExitCode::no_input,
        S_ISDIR(info.st_mode)
            ? "a folder, not a file"
            : "a pipe or a device, not a file that can be read again",
        path,
        S_ISDIR(info.st_mode) ? "" : "write the text to a file first");
  }
  return {
      static_cast<uint64_t>(info.st_size),
      static_cast<uint64_t>(info.st_ino),
      nanoseconds(info.st_mtim),
      nanoseconds(info.st_ctim)};
}

class FileStream : public ByteStream {
 public:
  FileStream(
      const std::string& path,
      const FileStamp& stamp,
      uint64_t* bytes_read)
      : path_(path), stamp_(stamp), bytes_read_(bytes_read) {
    // Without O_NONBLOCK, a pipe put here meanwhile would block.
    file_ =
        file::Descriptor(file::file_system().open(path, O_RDONLY | O_NONBLOCK));
    if (!file_.is_open()) {
      throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
    }
    check_unchanged();
    ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }

  size_t read(std::span<char> buffer) override {
    ssize_t n = 0;
    do {
      n = file::file_system().read(file_.get(), buffer);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
      throw base::system_error(ExitCode::no_input, "cannot read", path_, errno);
    }
    if (n == 0) {
      check_unchanged();
    }
    if (bytes_read_ != nullptr) {
      *bytes_read_ += static_cast<uint64_t>(n);
    }
    return static_cast<size_t>(n);
  }

 private:
  void check_unchanged() const {
    struct stat info {};
    if (::fstat(file_.get(), &info) != 0) {
      throw base::system_error(ExitCode::no_input, "cannot read", path_, errno);
    }
    if (checked_stamp(path_, info) != stamp_) {
      throw Error(
          ExitCode::data,
          "the file was changed while it was read",
          path_,
          "start again when no program writes to it");
    }
  }

  std::string path_;
  FileStamp stamp_;
  uint64_t* bytes_read_;
  file::Descriptor file_;
};

class MemoryStream : public ByteStream {
 public:
  explicit MemoryStream(std::string_view text) : text_(text) {}

  size_t read(std::span<char> buffer) override {
    const size_t n = std::min(buffer.size(), text_.size());
    std::copy_n(text_.begin(), n, buffer.begin());
    text_.remove_prefix(n);
    return n;
  }

 private:
  std::string_view text_;
};

} // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
  }
  const FileStamp stamp = checked_stamp(path, info);
  if (::access(path.c_str(), R_OK) != 0) {
    throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
  }
  return stamp;
}

std::unique_ptr<ByteStream> open_file(
    const std::string& path,
    const FileStamp& stamp,
    uint64_t* bytes_read) {
  return std::make_unique<FileStream>(path, stamp, bytes_read);
}

std::unique_ptr<ByteStream> open_memory(std::string_view text) {
  return std::make_unique<MemoryStream>(text);
}

} // namespace deepspeed::text
