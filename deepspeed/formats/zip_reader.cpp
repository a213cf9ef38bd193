// Reading zip archives without compression, strictly.
#include <zlib.h>

#include <algorithm>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/zip.h"
#include "deepspeed/formats/zip_format.h"

namespace deepspeed::formats {
namespace {

using namespace zip;

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Finds the field `id` in the extra fields of a header. `sound` tells whether
// the fields fill `extra` exactly.
std::span<const std::byte> find_extra(
    std::span<const std::byte> extra,
    uint32_t id,
    bool* sound) {
  std::span<const std::byte> found;
  while (extra.size() >= kExtraHeaderSize) {
    Cursor cursor(extra);
    const uint32_t field_id = cursor.u16();
    const size_t size = cursor.u16();
    extra = extra.subspan(kExtraHeaderSize);
    if (size > extra.size()) {
      break;
    }
    if (field_id == id && found.data() == nullptr) {
      found = extra.first(size);
    }
    extra = extra.subspan(size);
  }
  *sound = extra.empty();
  return found;
}

// Replaces `value` by the next number of the zip64 field if it is saturated.
bool widen(std::span<const std::byte>& wide, uint64_t& value) {
  if (value != kSaturated32) {
    return true;
  }
  if (wide.size() < 8) {
    return false;
  }
  value = Cursor(wide).u64();
  wide = wide.subspan(8);
  return true;
}

} // namespace

void ZipReader::fail(const std::string& what) const {
  throw base::Error(
      base::ExitCode::data,
      what,
      source_,
      "the file is damaged or was cut off: take another checkpoint");
}

std::span<const std::byte> ZipReader::slice(
    uint64_t at,
    uint64_t size,
    const char* what) const {
  if (at > bytes_.size() || size > bytes_.size() - at) {
    const uint64_t end = size > UINT64_MAX - at ? UINT64_MAX : at + size;
    fail(
        std::string(what) + " should end at byte " + std::to_string(end) +
        ", but the file has " + std::to_string(bytes_.size()));
  }
  return bytes_.subspan(at, size);
}

ZipReader::ZipReader(std::span<const std::byte> bytes, std::string source)
    : bytes_(bytes), source_(std::move(source)) {
  const Directory directory = read_end();
  uint64_t at = directory.offset;
  // The count is bounded: every entry takes part of the directory.
  for (uint64_t i = 0; i < directory.count; ++i) {
    at = read_entry(at, directory);
  }
  if (at != directory.offset + directory.size) {
    fail("the table of contents is longer than its entries");
  }
  check_overlap(std::move(ranges_), directory);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!index_.emplace(entries_[i].name, i).second) {
      fail("two entries are named " + std::string(entries_[i].name));
    }
  }
}

ZipReader::Directory ZipReader::read_end() const {
  if (bytes_.size() < kEndSize) {
    fail(
        "an archive has at least " + std::to_string(kEndSize) +
        " bytes, but the file has " + std::to_string(bytes_.size()));
  }
  // torch and Python write no comment, so the end record is the very end.
  const uint64_t at = bytes_.size() - kEndSize;
  Cursor cursor(slice(at, kEndSize, "the end record"));
  if (cursor.u32() != kEndSignature) {
    fail(
        "no table of contents at the end of the " +
        std::to_string(bytes_.size()) + " bytes: the file was cut off");
  }
  const bool one_disk = cursor.u16() == 0 && cursor.u16() == 0;
  Directory directory;
  directory.count = cursor.u16();
  const uint64_t total = cursor.u16();
  directory.size = cursor.u32();
  directory.offset = cursor.u32();
  directory.end = at;
  if (!one_disk || total != directory.count || cursor.u16() != 0) {
    fail("the archive is split over disks or has a comment");
  }
  if (has_locator(at)) {
    const Directory wide = read_end64(at);
    // A short field is either the same number or saturated.
    const bool same =
        (directory.count == kSaturated16 || directory.count == wide.count) &&
        (directory.size == kSaturated32 || directory.size == wide.size) &&
        (directory.offset == kSaturated32 || directory.offset == wide.offset);
    if (!same) {
      fail("the two end records contradict each other");
    }
    directory = wide;
  }
  uint64_t end = 0;
  if (__builtin_add_overflow(directory.offset, directory.size, &end) ||
      end != directory.end) {
    fail(
        "the table of contents should end at byte " + std::to_string(end) +
        ", but it ends at " + std::to_string(directory.end) + " of " +
        std::to_string(bytes_.size()) + " bytes");
  }
  return directory;
}

// Whether 64-bit records stand before the end record. torch always writes them.
bool ZipReader::has_locator(uint64_t end_offset) const {
  return end_offset >= kLocatorSize + kEnd64Size &&
      Cursor(bytes_.subspan(end_offset - kLocatorSize)).u32() ==
      kLocatorSignature;
}

ZipReader::Directory ZipReader::read_end64(uint64_t end_offset) const {
  Cursor locator(slice(end_offset - kLocatorSize, kLocatorSize, "the locator"));
  locator.skip(4);
  const uint32_t disk = locator.u32();
  const uint64_t at = locator.u64();
  const uint64_t begin = end_offset - kLocatorSize - kEnd64Size;
  if (disk != 0 || locator.u32() != 1) {
    fail("the archive is split over disks");
  }
  if (at != begin) {
    fail(
        "the end record should begin at byte " + std::to_string(at) +
        ", but it begins at " + std::to_string(begin) + " of " +
        std::to_string(bytes_.size()) + " bytes");
  }
  Cursor cursor(slice(at, kEnd64Size, "the 64-bit end record"));
  const bool is_end = cursor.u32() == kEnd64Signature;
  const bool right_size = cursor.u64() == kEnd64Size - 12;
  cursor.skip(4); // versions
  const bool one_disk = cursor.u32() == 0 && cursor.u32() == 0;
  Directory directory;
  directory.count = cursor.u64();
  const uint64_t total = cursor.u64();
  directory.size = cursor.u64();
  directory.offset = cursor.u64();
  directory.end = at;
  if (!is_end || !right_size || !one_disk || total != directory.count) {
    fail("the 64-bit end record is damaged");
  }
  return directory;
}

// Reads one entry of the table of contents and its local header; returns where
// the next entry begins.
uint64_t ZipReader::read_entry(uint64_t at, const Directory& directory) {
  constexpr const char* kWhat = "the table of contents";
  Cursor cursor(slice(at, kCentralSize, kWhat));
  if (cursor.u32() != kCentralSignature) {
    fail(
        "entry " + std::to_string(entries_.size()) + " of " + kWhat +
        " is damaged");
  }
  cursor.skip(4); // versions
  const uint32_t flags = cursor.u16();
  const uint32_t method = cursor.u16();
  cursor.skip(4); // date
  ZipEntry entry;
  entry.crc = cursor.u32();
  uint64_t stored = cursor.u32();
  uint64_t size = cursor.u32();
  const uint64_t name_size = cursor.u16();
  const uint64_t extra_size = cursor.u16();
  const uint64_t comment_size = cursor.u16();
  const uint32_t disk = cursor.u16();
  cursor.skip(6); // attributes
  entry.header_offset = cursor.u32();
  const uint64_t body = at + kCentralSize;
  const uint64_t next = body + name_size + extra_size + comment_size;
  if (next > directory.end) {
    fail("the table of contents is damaged");
  }
  entry.name = as_text(slice(body, name_size, kWhat));
  bool sound = false;
  std::span<const std::byte> wide = find_extra(
      slice(body + name_size, extra_size, kWhat), kExtraZip64, &sound);
  sound = sound && widen(wide, size) && widen(wide, stored) &&
      widen(wide, entry.header_offset);
  const std::string shown(entry.name.substr(0, 100));
  if (!sound || disk != 0 || name_size == 0 ||
      entry.name.find('\0') != std::string_view::npos) {
    fail("entry " + shown + " of the table of contents is damaged");
  }
  if (method != 0 || (flags & ~(kFlagDescriptor | kFlagUtf8)) != 0 ||
      stored != size) {
    fail("entry " + shown + " is compressed or encrypted: torch does neither");
  }
  const uint64_t end = read_local(entry, flags, size);
  ranges_.emplace_back(entry.header_offset, end);
  entries_.push_back(entry);
  return next;
}

// Compares the local header with the table of contents and finds the data;
// returns where the entry ends.
uint64_t ZipReader::read_local(ZipEntry& entry, uint32_t flags, uint64_t size)
    const {
  const std::string what = "entry " + std::string(entry.name.substr(0, 100));
  Cursor cursor(slice(entry.header_offset, kLocalSize, what.c_str()));
  const bool signature = cursor.u32() == kLocalSignature;
  cursor.skip(2); // version
  const bool same_kind = cursor.u16() == flags && cursor.u16() == 0;
  cursor.skip(4); // date
  const uint32_t crc = cursor.u32();
  uint64_t stored = cursor.u32();
  uint64_t plain = cursor.u32();
  const uint64_t name_size = cursor.u16();
  const uint64_t extra_size = cursor.u16();
  const uint64_t name_at = entry.header_offset + kLocalSize;
  if (!signature || !same_kind ||
      as_text(slice(name_at, name_size, what.c_str())) != entry.name) {
    fail(what + " differs from the table of contents");
  }
  bool sound = false;
  const std::span<const std::byte> wide = find_extra(
      slice(name_at + name_size, extra_size, what.c_str()),
      kExtraZip64,
      &sound);
  const bool is_wide = wide.data() != nullptr;
  std::span<const std::byte> rest = wide;
  sound = sound && widen(rest, plain) && widen(rest, stored);
  // With a descriptor, torch leaves the fields of the header empty.
  const bool later = (flags & kFlagDescriptor) != 0;
  const bool empty = later && stored == 0 && plain == 0 && crc == 0;
  const bool same = stored == size && plain == size && crc == entry.crc;
  if (!sound || !(empty || same)) {
    fail(what + " differs from the table of contents");
  }
  const uint64_t data_at = name_at + name_size + extra_size;
  entry.data = slice(data_at, size, what.c_str());
  const uint64_t end = data_at + size;
  return later ? check_descriptor(entry, end, is_wide) : end;
}

uint64_t ZipReader::check_descriptor(
    const ZipEntry& entry,
    uint64_t at,
    bool wide) const {
  const uint64_t length = wide ? kDescriptorSize + 8 : kDescriptorSize;
  Cursor cursor(slice(at, length, "the checksum of an entry"));
  bool same = cursor.u32() == kDescriptorSignature && cursor.u32() == entry.crc;
  const uint64_t stored = wide ? cursor.u64() : cursor.u32();
  const uint64_t plain = wide ? cursor.u64() : cursor.u32();
  same = same && stored == entry.data.size() && plain == entry.data.size();
  if (!same) {
    fail(
        "the checksum record of entry " + std::string(entry.name) +
        " differs from the table of contents");
  }
  return at + length;
}

void ZipReader::check_overlap(
    std::vector<std::pair<uint64_t, uint64_t>> ranges,
    const Directory& directory) const {
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 0; i < ranges.size(); ++i) {
    const uint64_t limit =
        i + 1 < ranges.size() ? ranges[i + 1].first : directory.offset;
    if (ranges[i].second > limit) {
      fail("the entries overlap at byte " + std::to_string(limit));
    }
  }
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

void ZipReader::verify(const std::function<void()>& after_block) const {
  constexpr size_t kBlockBytes = size_t{16} << 20;
  for (const ZipEntry& entry : entries_) {
    if (!entry.has_crc()) {
      continue;
    }
    uLong crc = 0;
    for (size_t at = 0; at < entry.data.size(); at += kBlockBytes) {
      const auto block =
          entry.data.subspan(at, std::min(kBlockBytes, entry.data.size() - at));
      crc = crc32_z(
          crc, reinterpret_cast<const Bytef*>(block.data()), block.size());
      if (after_block) {
        after_block();
      }
    }
    if (crc != entry.crc) {
      fail(
          "the bytes of entry " + std::string(entry.name) +
          " do not match their checksum");
    }
  }
}

} // namespace deepspeed::formats
