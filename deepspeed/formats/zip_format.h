// The signatures, flags and little-endian fields of zip archives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace deepspeed::formats::zip {

inline constexpr uint32_t kLocalSignature = 0x04034b50;
inline constexpr uint32_t kDescriptorSignature = 0x08074b50;
inline constexpr uint32_t kCentralSignature = 0x02014b50;
inline constexpr uint32_t kEndSignature = 0x06054b50;
inline constexpr uint32_t kEnd64Signature = 0x06064b50;
inline constexpr uint32_t kLocatorSignature = 0x07064b50;

// Sizes of the fixed parts.
inline constexpr uint64_t kLocalSize = 30;
inline constexpr uint64_t kCentralSize = 46;
inline constexpr uint64_t kEndSize = 22;
inline constexpr uint64_t kEnd64Size = 56;
inline constexpr uint64_t kLocatorSize = 20;
inline constexpr uint64_t kDescriptorSize = 16; // 24 with 64-bit sizes

inline constexpr uint32_t kFlagDescriptor = 1 << 3; // sizes follow the data
inline constexpr uint32_t kFlagUtf8 = 1 << 11;

inline constexpr uint32_t kExtraZip64 = 0x0001;
inline constexpr uint32_t kExtraPadding = 0x4246; // "FB", PyTorch's
inline constexpr uint64_t kExtraHeaderSize = 4;

inline constexpr uint32_t kSaturated16 = 0xffff;
inline constexpr uint32_t kSaturated32 = 0xffffffff;

// Reads fields one after the other; the caller has checked the length.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : at_(bytes.data()) {}
  uint32_t u16() {
    return static_cast<uint32_t>(take(2));
  }
  uint32_t u32() {
    return static_cast<uint32_t>(take(4));
  }
  uint64_t u64() {
    return take(8);
  }
  void skip(size_t n) {
    at_ += n;
  }

 private:
  uint64_t take(int n) {
    uint64_t value = 0;
    for (int i = 0; i < n; ++i) {
      value |= std::to_integer<uint64_t>(*at_++) << (8 * i);
    }
    return value;
  }
  const std::byte* at_;
};

// Builds a record field by field.
class Fields {
 public:
  Fields& u16(uint64_t value) {
    return put(value, 2);
  }
  Fields& u32(uint64_t value) {
    return put(value, 4);
  }
  Fields& u64(uint64_t value) {
    return put(value, 8);
  }
  const std::string& bytes() const {
    return bytes_;
  }

 private:
  Fields& put(uint64_t value, int n) {
    for (int i = 0; i < n; ++i) {
      bytes_ += static_cast<char>(value >> (8 * i));
    }
    return *this;
  }
  std::string bytes_;
};

} // namespace deepspeed::formats::zip
