// CRC-32C (Castagnoli), the checksum of TFRecord files.
#pragma once

#include <cstdint>
#include <string_view>

namespace deepspeed::base {

// Polynomial 0x1EDC6F41 reflected, as RFC 3720 (iSCSI) section B.4 tests it.
uint32_t crc32c(std::string_view bytes);

// The same by table only, for processors without the instruction.
uint32_t crc32c_by_table(std::string_view bytes);

// TFRecord stores the checksum rotated and shifted, so that a checksum of bytes
// that hold checksums keeps its strength.
uint32_t masked_crc32c(std::string_view bytes);

} // namespace deepspeed::base
