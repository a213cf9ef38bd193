// Publishing a file: readers see the old one or the whole new one, never a
// part.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::base {
class ContentHash;
} // namespace deepspeed::base

namespace deepspeed::file {

// Writes to a temporary name beside `path`; commit() syncs the data, renames it
// to `path` and syncs the folder. Without commit() the destructor removes the
// temporary file. After a failed sync the file is never published: the kernel
// may have dropped the pages already (PostgreSQL's "fsyncgate").
// Throws Error(cannot_create) if the file cannot be made, Error(io) later.
// Not thread-safe.
class AtomicFile {
 public:
  // `hash` takes in every byte as it is written; it may be null. `mode` is
  // that of the file, less the umask.
  explicit AtomicFile(
      std::string path,
      base::ContentHash* hash = nullptr,
      mode_t mode = 0666);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends; buffered in blocks of 1 MiB.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Bytes appended so far.
  uint64_t size() const {
    return size_;
  }
  void commit();

 private:
  void write_through(std::span<const std::byte> bytes);
  void flush();

  std::string path_;
  std::string temporary_;
  Descriptor file_;
  uint64_t size_ = 0;
  std::string buffer_;
  base::ContentHash* hash_ = nullptr;
};

// The whole of a small text file, at once.
void write_file_atomically(
    const std::string& path,
    std::string_view text,
    mode_t mode = 0666);

// Reads a file of at most `max_bytes`. Error(no_input) if it cannot be read or
// is a pipe or a device (open_file.h), Error(data) if it is larger.
std::string read_file(const std::string& path, uint64_t max_bytes);

// True for names that AtomicFile uses while writing, and for no others: a
// user's own "notes.tmp-old" is not one.
bool is_temporary_name(std::string_view name);

// Removes what a killed process left half written in a folder, as far as it
// can. Only for a folder that no other process is writing to.
void remove_temporary_files(const std::string& folder);

} // namespace deepspeed::file
