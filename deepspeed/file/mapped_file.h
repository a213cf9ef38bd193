// A file mapped into memory for reading.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace deepspeed::file {

struct MappedRegion;

// The bytes of a file, read on demand by the kernel. Movable; the bytes stay
// valid as long as the object. Throws Error(no_input) with the path.
//
// A disk may fail, or the file be cut short, at any read (SIGBUS). Inside of
// checked() that is an Error; elsewhere the process ends with ExitCode::io and
// the path in words, since nobody could tell its zeros from the file's.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const {
    return {data_, size_};
  }
  // Returns read(), which may use the bytes on any thread. If some could not be
  // read, Error(data) with path and place instead, or instead of what read()
  // threw: it saw zeros there.
  template <typename Read>
  auto checked(Read read) const {
    const Watch watch(*this);
    try {
      auto result = read();
      check();
      return result;
    } catch (...) {
      check();
      throw;
    }
  }
  // Gives back the memory of the pages read so far; the bytes stay readable.
  // For those who go through files larger than the memory.
  void release_pages() const;
  const std::string& path() const {
    return path_;
  }

 private:
  struct Watch {
    explicit Watch(const MappedFile& file);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    MappedRegion* region;
  };
  void check() const;

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  MappedRegion* region_ = nullptr; // what the signal handler knows of it
};

} // namespace deepspeed::file
