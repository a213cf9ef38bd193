// Publishing a file: readers see the old one or the whole new one, never a
// part.
#include "deepspeed/file/atomic_file.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/open_file.h"
#include "deepspeed/file/random_name.h"

namespace deepspeed::file {
namespace {

constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr size_t kTemporaryDigits = 16;
constexpr size_t kBufferBytes = size_t{1} << 20;

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
      file_system().remove(entry.path());
    }
  }
}

AtomicFile::AtomicFile(std::string path, base::ContentHash* hash, mode_t mode)
    : path_(std::move(path)), hash_(hash) {
  do {
    temporary_ =
        path_ + std::string(kTemporaryMark) + random_name(kTemporaryDigits);
    file_ = Descriptor(
        file_system().open(temporary_, O_WRONLY | O_CREAT | O_EXCL, mode));
  } while (!file_.is_open() && errno == EEXIST);
  if (!file_.is_open()) {
    throw base::system_error(
        base::ExitCode::cannot_create, "cannot create", path_, errno);
  }
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (file_.is_open()) {
    file_system().remove(temporary_);
  }
}

void AtomicFile::write_through(std::span<const std::byte> bytes) {
  if (!write_all(file_.get(), bytes)) {
    throw write_error(path_, size_, errno);
  }
}

void AtomicFile::flush() {
  write_through(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    flush();
  }
  if (bytes.size() >= kBufferBytes) {
    write_through(bytes);
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
  if (file_system().sync(file_.get()) != 0) {
    throw write_error(path_, size_, errno);
  }
  const int fd = file_.release();
  if (::close(fd) != 0 || file_system().rename(temporary_, path_) != 0) {
    const int saved_errno = errno;
    file_system().remove(temporary_);
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
  const Descriptor file = open_to_read(path);
  std::string text;
  std::array<char, 65536> block;
  while (true) {
    const ssize_t n = file_system().read(file.get(), block);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      throw base::system_error(
          base::ExitCode::no_input, "cannot read", path, errno);
    }
    if (n == 0) {
      return text;
    }
    text.append(block.data(), static_cast<size_t>(n));
    if (text.size() > max_bytes) {
      throw base::Error(
          base::ExitCode::data,
          "file is larger than " + std::to_string(max_bytes) + " bytes",
          path,
          "");
    }
  }
}

} // namespace deepspeed::file
