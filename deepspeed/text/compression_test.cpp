// What is compressed is read whole, or refused with its name.
#include "deepspeed/text/compression.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/text/test_files.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

// In pieces of `piece` bytes, so that every state of a decompressor is met.
std::string read_all(ByteStream& stream, size_t piece) {
  std::string text;
  std::vector<char> buffer(piece);
  while (const size_t n = stream.read(buffer)) {
    text.append(buffer.data(), n);
  }
  EXPECT_EQ(stream.read(buffer), 0u); // the end stays the end
  return text;
}

std::string unpack(
    Compression compression,
    std::string_view bytes,
    size_t piece = 1000) {
  return read_all(
      *decompress(compression, open_memory(bytes), "file.x"), piece);
}

// Text that does not compress to nothing.
std::string some_text(size_t n) {
  std::string text;
  for (uint32_t i = 0; text.size() < n; ++i) {
    text += std::to_string(i * 2654435761U) + (i % 9 == 0 ? "\n" : " ");
  }
  return text;
}

TEST(Compression, UnpacksEveryPieceSize) {
  const std::string text = some_text(700000); // more than an input buffer
  for (size_t piece : {size_t{1} << 20, size_t{4096}, size_t{37}}) {
    EXPECT_EQ(unpack(Compression::none, text, piece), text);
    EXPECT_EQ(unpack(Compression::gzip, gzip(text), piece), text);
    EXPECT_EQ(unpack(Compression::zstd, zstd(text), piece), text);
    EXPECT_EQ(unpack(Compression::xz, xz(text), piece), text);
    EXPECT_EQ(unpack(Compression::bzip2, bzip2(text), piece), text);
  }
}

TEST(Compression, UnpacksMembersAndFrames) {
  EXPECT_EQ(
      unpack(Compression::gzip, gzip("one ") + gzip("") + gzip("two")),
      "one two");
  EXPECT_EQ(
      unpack(Compression::gzip, gzip("one") + std::string(600000, '\0')),
      "one"); // padding, as tapes have it
  EXPECT_EQ(
      unpack(Compression::zstd, zstd("one ") + zstd("") + zstd("two")),
      "one two");
  EXPECT_EQ(
      unpack(Compression::xz, xz("one ") + xz("") + xz("two")), "one two");
  EXPECT_EQ(
      unpack(Compression::bzip2, bzip2("one ") + bzip2("") + bzip2("two")),
      "one two");
}

TEST(Compression, RefusesWhatWasCut) {
  const std::string text = some_text(3000);
  for (const auto& [compression, bytes] :
       {std::pair{Compression::gzip, gzip(text)},
        std::pair{Compression::zstd, zstd(text)},
        std::pair{Compression::xz, xz(text)},
        std::pair{Compression::bzip2, bzip2(text)}}) {
    for (size_t size = 0; size < bytes.size(); ++size) {
      try {
        unpack(compression, std::string_view(bytes).substr(0, size));
        ADD_FAILURE() << "cut after " << size;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::data);
        EXPECT_EQ(error.where(), "file.x");
        EXPECT_TRUE(std::string(error.what())
                        .ends_with(
                            "file ends after " + std::to_string(size) +
                            " bytes: truncated"))
            << error.what();
      }
    }
  }
}

TEST(Compression, RefusesWhatIsNotCompressed) {
  for (Compression compression :
       {Compression::gzip,
        Compression::zstd,
        Compression::xz,
        Compression::bzip2}) {
    EXPECT_THROW(unpack(compression, "plain text in a file.x"), Error);
  }
  EXPECT_THROW(unpack(Compression::gzip, gzip("one") + "garbage"), Error);
  EXPECT_THROW(unpack(Compression::zstd, zstd("one") + "garbage"), Error);
  EXPECT_THROW(unpack(Compression::xz, xz("one") + "garbage!"), Error);
  EXPECT_THROW(unpack(Compression::bzip2, bzip2("one") + "garbage"), Error);
  std::string flipped = gzip(some_text(3000));
  flipped[flipped.size() / 2] ^= 4;
  EXPECT_THROW(unpack(Compression::gzip, flipped), Error);
  for (size_t i = 0; i < 200; ++i) {
    for (auto [compression, bytes] :
         {std::pair{Compression::xz, xz("some text")},
          std::pair{Compression::bzip2, bzip2("some text")}}) {
      // The size of blocks may be any, and the last bits of bzip2.
      const bool counts = compression == Compression::xz || i > 3;
      if (counts && i + 1 < bytes.size()) {
        bytes[i] = static_cast<char>(bytes[i] ^ 1);
        EXPECT_THROW(unpack(compression, bytes), Error) << "byte " << i;
      }
    }
  }
}

TEST(Compression, KnowsTheCompressionByTheFirstBytes) {
  for (const auto& [compression, bytes] :
       {std::pair{Compression::gzip, gzip("a")},
        std::pair{Compression::zstd, zstd("a")},
        std::pair{Compression::xz, xz("a")},
        std::pair{Compression::bzip2, bzip2("a")},
        std::pair{Compression::bzip2, bzip2("")},
        std::pair{Compression::none, std::string("BZh9 is a text")},
        std::pair{Compression::none, std::string()}}) {
    EXPECT_EQ(compression_of_bytes(bytes), compression);
  }
}

TEST(Compression, TakesTheCompressionFromTheName) {
  EXPECT_EQ(compression_of("a.txt"), Compression::none);
  EXPECT_EQ(compression_of("a.TXT.GZ"), Compression::gzip);
  EXPECT_EQ(compression_of("a.xz"), Compression::xz);
  EXPECT_EQ(compression_of("a.bz2"), Compression::bzip2);
  EXPECT_EQ(plain_name("a.txt.bz2"), "a.txt");
  EXPECT_EQ(compression_of("a.txt.gz"), Compression::gzip);
  EXPECT_EQ(compression_of("a.zst"), Compression::zstd);
}

} // namespace
} // namespace deepspeed::text
