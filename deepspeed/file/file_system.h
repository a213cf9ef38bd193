// What the library asks of file systems, in one place that a test can replace.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace deepspeed::file {

// The calls of the kernel with its answers: -1 and errno where they fail. All
// that opens, writes, syncs, renames, locks or removes a file goes through
// file_system(), which tools/lint_includes.py checks; what only looks at names,
// sizes and times may ask std::filesystem. Files of /proc, terminals, pipes and
// memory are none of its business. Thread-safe.
class FileSystem {
 public:
  FileSystem() = default;
  virtual ~FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  // A descriptor, closed on exec whatever `flags` are; `mode` less the umask.
  virtual int open(const std::string& path, int flags, mode_t mode = 0666);
  virtual ssize_t read(int fd, std::span<char> bytes);
  virtual ssize_t write(int fd, std::span<const std::byte> bytes);
  // `text` becomes all that the file holds, wherever `fd` stands.
  virtual int replace_text(int fd, std::string_view text);
  // A lock of the whole file, exclusive and without waiting: EWOULDBLOCK.
  virtual int lock(int fd);
  virtual int sync(int fd);
  // The entries of a folder: EINVAL, ENOTSUP and ENOSYS where that cannot be.
  virtual int sync_folder(const std::string& path);
  virtual int rename(const std::string& from, const std::string& to);
  // Swaps two names in one step, where the file system can.
  virtual int exchange(const std::string& a, const std::string& b);
  // A file, a link or an empty folder.
  virtual int remove(const std::string& path);
  // A folder with all that is in it, no link followed. 0 if it is not there.
  virtual int remove_tree(const std::string& path);
  // One folder; the one above it must be there.
  virtual int make_folder(const std::string& path);
  virtual int set_mode(const std::string& path, mode_t mode);
  virtual std::filesystem::space_info space(
      const std::string& path,
      std::error_code& error);
};

// The kernel's, unless a test has put another one in its place.
FileSystem& file_system();

// For tests: the whole process uses `other` while this lives.
class FileSystemScope {
 public:
  explicit FileSystemScope(FileSystem& other);
  ~FileSystemScope();
  FileSystemScope(const FileSystemScope&) = delete;
  FileSystemScope& operator=(const FileSystemScope&) = delete;

 private:
  FileSystem* before_;
};

// Writes all of `bytes`, in as many calls as that takes. False, and errno, if
// one failed.
bool write_all(int fd, std::span<const std::byte> bytes);
bool write_all(int fd, std::string_view text);

// Makes the entries of a folder durable, where the file system can. Error(io).
void sync_folder(const std::string& path);

// The folder part of a path: "." for a bare name.
std::string parent_folder(const std::string& path);

// Makes a folder and those above it that are not there, durable as far as the
// file system can.
std::error_code try_make_folders(const std::string& path);
// Error(cannot_create), which begins with `action`.
void make_folders(
    const std::string& path,
    const char* action = "cannot create");

} // namespace deepspeed::file
