// Bytes of a text file in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace deepspeed::text {

// What identifies the content of a file as long as nobody forges it. The time
// of the last change of the inode cannot be set by a program, the other can.
struct FileStamp {
  uint64_t size = 0;
  uint64_t inode = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;

  bool operator==(const FileStamp&) const = default;
};

// Error(no_input) if `path` is not a regular file that can be read. Pipes and
// devices are refused: they could be read only once.
FileStamp stamp_of(const std::string& path);

// A sequence of bytes that is read once. Not thread-safe.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Fills a front part of `buffer` and returns its size: 0 at the end only.
  virtual size_t read(std::span<char> buffer) = 0;
};

// A regular file that still is what `stamp` says. Error(data) if it is another
// one when it is opened or when its end is reached. `bytes_read` (may be null)
// counts what was taken from disk.
std::unique_ptr<ByteStream> open_file(
    const std::string& path,
    const FileStamp& stamp,
    uint64_t* bytes_read = nullptr);

// The bytes of `text`, which must outlive the stream.
std::unique_ptr<ByteStream> open_memory(std::string_view text);

} // namespace deepspeed::text
