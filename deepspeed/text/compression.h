// Compressed files, known by their first bytes, as streams of what is in them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "deepspeed/text/byte_stream.h"

namespace deepspeed::text {

enum class Compression { none, gzip, zstd, xz, bzip2 };

// Enough of a file for compression_of_bytes().
constexpr size_t kMagicBytes = 16;

// By the first bytes of a file.
Compression compression_of_bytes(std::string_view head);

// By the ending of the name, in capitals or not: .gz, .zst, .xz, .bz2.
Compression compression_of(std::string_view name);

// "gzip", "zstd", "xz", "bzip2", "".
std::string name_of(Compression compression);

// `name` without the ending of its compression.
std::string_view plain_name(std::string_view name);

// Decompresses all members of a gzip file (RFC 1952), all frames of a zstd file
// (RFC 8878, windows of up to 128 MiB), all streams of an xz file (up to 256
// MiB of memory) or of a bzip2 file. Throws Error(data) with `name` for a
// damaged or truncated input.
std::unique_ptr<ByteStream> decompress(
    Compression compression,
    std::unique_ptr<ByteStream> compressed,
    const std::string& name);

} // namespace deepspeed::text
