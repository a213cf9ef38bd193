// A file mapped into memory for reading.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace deepspeed::base {

// The bytes of a file, read on demand by the kernel. Movable; the bytes stay
// valid as long as the object. Throws Error(no_input) with the path.
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
  // Gives back the memory of the pages read so far; the bytes stay readable.
  // For those who go through files larger than the memory.
  void release_pages() const;
  const std::string& path() const {
    return path_;
  }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

} // namespace deepspeed::base
