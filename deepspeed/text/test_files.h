// Files for tests of sources.
#pragma once

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace deepspeed::text {

inline void write_test_file(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.flush()) {
    throw std::runtime_error("cannot write " + path);
  }
}

// One gzip member.
inline std::string gzip(std::string_view text) {
  z_stream state{};
  deflateInit2(&state, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&state, text.size()) + 32, '\0');
  state.next_in =
      reinterpret_cast<Bytef*>(const_cast<char*>(text.data())); // not written
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  deflate(&state, Z_FINISH);
  out.resize(state.total_out);
  deflateEnd(&state);
  return out;
}

// One zstd frame.
inline std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(
      ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

// One xz stream.
inline std::string xz(std::string_view text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  size_t size = 0;
  lzma_easy_buffer_encode(
      /*preset=*/1,
      LZMA_CHECK_CRC64,
      nullptr,
      reinterpret_cast<const uint8_t*>(text.data()),
      text.size(),
      reinterpret_cast<uint8_t*>(out.data()),
      &size,
      out.size());
  out.resize(size);
  return out;
}

// One bzip2 stream.
inline std::string bzip2(std::string_view text) {
  auto size = static_cast<unsigned>(text.size() * 2 + 1000);
  std::string out(size, '\0');
  BZ2_bzBuffToBuffCompress(
      out.data(),
      &size,
      const_cast<char*>(text.data()), // not written
      static_cast<unsigned>(text.size()),
      /*blockSize100k=*/9,
      /*verbosity=*/0,
      /*workFactor=*/0);
  out.resize(size);
  return out;
}

} // namespace deepspeed::text
