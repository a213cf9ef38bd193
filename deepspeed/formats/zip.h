// Zip archives without compression, laid out as torch.save lays them out.
// Format: PKWARE's APPNOTE.TXT 6.3; alignment: PyTorch's inline_container.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "deepspeed/file/atomic_file.h"
#include "deepspeed/formats/tensor.h"

namespace deepspeed::formats {

struct ZipEntry {
  std::string_view name; // points into the archive
  std::span<const std::byte> data; // points into the archive
  uint32_t crc = 0;
  uint64_t header_offset = 0;

  // Python writes 0 when told not to compute checksums. (The CRC of real data
  // is 0 once in 4 billion; such an entry is then not checked.)
  bool has_crc() const {
    return crc != 0 || data.empty();
  }
};

// The table of contents of an archive in memory. Everything in it is checked
// against the archive's bytes and against the local headers: one archive has
// one reading. The bytes must stay as long as the reader and its entries.
class ZipReader {
 public:
  // Error(data), with `source` as the place, for what is truncated, damaged,
  // compressed, encrypted, split over disks, or holds a name twice or entries
  // that overlap.
  ZipReader(std::span<const std::byte> bytes, std::string source);

  // In the order of the table of contents.
  const std::vector<ZipEntry>& entries() const {
    return entries_;
  }
  // Null if there is no such entry.
  const ZipEntry* find(std::string_view name) const;
  // Compares the data of every entry that has a CRC-32 with it: reads the whole
  // archive. Error(data) that names the entry. `after_block`, if any, is called
  // after every few MiB.
  void verify(const std::function<void()>& after_block = {}) const;

 private:
  struct Directory {
    uint64_t offset = 0;
    uint64_t size = 0;
    uint64_t count = 0;
    uint64_t end = 0; // where the records of the archive's end begin
  };

  Directory read_end() const;
  bool has_locator(uint64_t end_offset) const;
  Directory read_end64(uint64_t end_offset) const;
  uint64_t read_entry(uint64_t at, const Directory& directory);
  uint64_t read_local(ZipEntry& entry, uint32_t flags, uint64_t size) const;
  uint64_t check_descriptor(const ZipEntry& entry, uint64_t at, bool wide)
      const;
  void check_overlap(
      std::vector<std::pair<uint64_t, uint64_t>> ranges,
      const Directory& directory) const;
  std::span<const std::byte> slice(uint64_t at, uint64_t size, const char* what)
      const;
  [[noreturn]] void fail(const std::string& what) const;

  std::span<const std::byte> bytes_;
  std::string source_;
  std::vector<ZipEntry> entries_;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
  std::unordered_map<std::string_view, size_t> index_;
};

// Appends entries to a file: data begins at multiples of 64 bytes, through a
// padding field "FB" in the local header, and is followed by its CRC-32. All
// lengths are those of torch's files, so that torch.load can compute offsets
// without reading headers. Not thread-safe.
class ZipWriter {
 public:
  static constexpr uint64_t kAlignment = 64;

  // Sizes and offsets of `zip64_limit` and more are written in 64 bits. Tests
  // lower it; readers accept any.
  explicit ZipWriter(file::AtomicFile& file, uint64_t zip64_limit = UINT32_MAX)
      : file_(file), zip64_limit_(zip64_limit) {}

  // Names must be unique. Reads `data` once. Throws what AtomicFile::write
  // does.
  void add(std::string_view name, std::span<const std::byte> data);
  void add(std::string_view name, std::string_view text);
  // The same for `size` bytes that `produce` hands to its sink; other than
  // that many are std::logic_error.
  void add(
      std::string_view name,
      uint64_t size,
      const std::function<void(const ByteSink&)>& produce);
  // A number that depends on all names and checksums so far.
  uint64_t digest() const {
    return digest_;
  }
  // Writes the table of contents. The file is left for the caller to commit.
  void finish();

 private:
  struct Record {
    std::string name;
    uint32_t crc;
    uint64_t size;
    uint64_t header_offset;
  };

  void write_local_header(const Record& record);
  void write_descriptor(const Record& record);
  std::string zip64_field(const Record& record) const;
  bool is_wide(const Record& record) const;

  file::AtomicFile& file_;
  uint64_t zip64_limit_;
  std::vector<Record> records_;
  uint64_t digest_ = 14695981039346656037ull;
};

} // namespace deepspeed::formats
