// Writing zip archives as torch.save lays them out.
#include <zlib.h>

#include <algorithm>
#include <stdexcept>

#include "deepspeed/formats/zip.h"
#include "deepspeed/formats/zip_format.h"

namespace deepspeed::formats {
namespace {

using namespace zip;

// Large enough to pass AtomicFile's buffer, small enough to be in cache still
// when the checksum is done.
constexpr size_t kBlockBytes = size_t{1} << 20;

uint64_t saturate(uint64_t value, uint64_t limit, uint64_t saturated) {
  return value >= limit ? saturated : value;
}

// FNV-1a.
uint64_t mix(uint64_t digest, std::string_view bytes) {
  for (const char c : bytes) {
    digest = (digest ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  }
  return digest;
}

} // namespace

bool ZipWriter::is_wide(const Record& record) const {
  return record.size >= zip64_limit_ || record.header_offset >= zip64_limit_;
}

// Holds those of size, stored size and offset that are too large for 32 bits.
std::string ZipWriter::zip64_field(const Record& record) const {
  if (!is_wide(record)) {
    return "";
  }
  Fields body;
  if (record.size >= zip64_limit_) {
    body.u64(record.size).u64(record.size);
  }
  if (record.header_offset >= zip64_limit_) {
    body.u64(record.header_offset);
  }
  Fields head;
  head.u16(kExtraZip64).u16(body.bytes().size());
  return head.bytes() + body.bytes();
}

void ZipWriter::write_local_header(const Record& record) {
  const std::string wide = zip64_field(record);
  const uint64_t fixed =
      kLocalSize + record.name.size() + wide.size() + kExtraHeaderSize;
  const uint64_t end = record.header_offset + fixed;
  const uint64_t padding = (kAlignment - end % kAlignment) % kAlignment;

  // Sizes and checksum stand behind the data, as they do in torch's files; an
  // entry without data has nothing behind it.
  Fields header;
  header.u32(kLocalSignature)
      .u16(0) // version needed
      .u16(kFlagUtf8 | (record.size > 0 ? kFlagDescriptor : 0))
      .u16(0) // stored
      .u32(0) // no date: equal trees make equal files
      .u32(0)
      .u32(0)
      .u32(0)
      .u16(record.name.size())
      .u16(wide.size() + kExtraHeaderSize + padding);
  file_.write(header.bytes());
  file_.write(record.name);
  file_.write(wide);
  Fields pad;
  pad.u16(kExtraPadding).u16(padding);
  file_.write(pad.bytes());
  file_.write(std::string(padding, 'Z'));
}

void ZipWriter::write_descriptor(const Record& record) {
  Fields fields;
  fields.u32(kDescriptorSignature).u32(record.crc);
  if (is_wide(record)) {
    fields.u64(record.size).u64(record.size);
  } else {
    fields.u32(record.size).u32(record.size);
  }
  file_.write(fields.bytes());
}

void ZipWriter::add(
    std::string_view name,
    uint64_t size,
    const std::function<void(const ByteSink&)>& produce) {
  Record record{std::string(name), 0, size, file_.size()};
  write_local_header(record);
  uint64_t written = 0;
  produce([&](std::span<const std::byte> block) {
    record.crc = static_cast<uint32_t>(crc32_z(
        record.crc,
        reinterpret_cast<const Bytef*>(block.data()),
        block.size()));
    file_.write(block);
    written += block.size();
  });
  if (written != size) {
    throw std::logic_error(
        record.name + " has " + std::to_string(written) + " bytes, not " +
        std::to_string(size));
  }
  if (size > 0) {
    write_descriptor(record);
  }
  digest_ = mix(mix(digest_, name), Fields().u32(record.crc).bytes());
  records_.push_back(std::move(record));
}

void ZipWriter::add(std::string_view name, std::span<const std::byte> data) {
  add(name, data.size(), [&](const ByteSink& sink) {
    for (size_t at = 0; at < data.size(); at += kBlockBytes) {
      sink(data.subspan(at, std::min(kBlockBytes, data.size() - at)));
    }
  });
}

void ZipWriter::add(std::string_view name, std::string_view text) {
  add(name, std::as_bytes(std::span(text.data(), text.size())));
}

void ZipWriter::finish() {
  const uint64_t offset = file_.size();
  for (const Record& record : records_) {
    const std::string wide = zip64_field(record);
    const uint64_t size = saturate(record.size, zip64_limit_, kSaturated32);
    Fields header;
    header.u32(kCentralSignature)
        .u16(0) // made by
        .u16(0) // version needed
        .u16(kFlagUtf8 | (record.size > 0 ? kFlagDescriptor : 0))
        .u16(0) // stored
        .u32(0) // no date
        .u32(record.crc)
        .u32(size)
        .u32(size)
        .u16(record.name.size())
        .u16(wide.size())
        .u16(0) // comment
        .u16(0) // disk
        .u16(0) // internal attributes
        .u32(0) // external attributes
        .u32(saturate(record.header_offset, zip64_limit_, kSaturated32));
    file_.write(header.bytes());
    file_.write(record.name);
    file_.write(wide);
  }
  const uint64_t end = file_.size();
  const uint64_t size = end - offset;
  const uint64_t count = records_.size();
  // torch writes the 64-bit records whether they are needed or not; the
  // versions are those of its files.
  Fields end64;
  end64.u32(kEnd64Signature).u64(kEnd64Size - 12).u16(0x031e).u16(45);
  end64.u32(0).u32(0).u64(count).u64(count).u64(size).u64(offset);
  end64.u32(kLocatorSignature).u32(0).u64(end).u32(1);
  file_.write(end64.bytes());
  const uint64_t short_count = saturate(count, kSaturated16, kSaturated16);
  Fields last;
  last.u32(kEndSignature).u16(0).u16(0).u16(short_count).u16(short_count);
  last.u32(saturate(size, zip64_limit_, kSaturated32));
  last.u32(saturate(offset, zip64_limit_, kSaturated32)).u16(0);
  file_.write(last.bytes());
}

} // namespace deepspeed::formats
