// Archives come back as they were written, and damage is seen.
#include "deepspeed/formats/zip.h"

#include <gtest/gtest.h>

#include <functional>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::formats {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The archive that `fill` writes.
std::string make_archive(
    const std::function<void(ZipWriter&)>& fill,
    uint64_t zip64_limit = UINT32_MAX) {
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/a.zip";
  file::AtomicFile file(path);
  ZipWriter zip(file, zip64_limit);
  fill(zip);
  zip.finish();
  file.commit();
  return file::read_file(path, uint64_t{1} << 30);
}

std::string three_entries(uint64_t zip64_limit = UINT32_MAX) {
  return make_archive(
      [](ZipWriter& zip) {
        zip.add("m/first", std::string_view("hello"));
        zip.add("m/empty", std::string_view());
        zip.add("m/last", std::string(200, 'x'));
      },
      zip64_limit);
}

// The complaint about an archive, or "" if there is none.
std::string complaint(std::string_view archive) {
  try {
    ZipReader(bytes_of(archive), "a.zip").verify();
    return "";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    return error.what();
  }
}

TEST(Zip, RoundTripAtAlignedOffsets) {
  for (const uint64_t limit : {uint64_t{UINT32_MAX}, uint64_t{0}}) {
    const std::string archive = three_entries(limit);
    const ZipReader zip(bytes_of(archive), "a.zip");
    zip.verify();
    ASSERT_EQ(zip.entries().size(), 3u);
    EXPECT_EQ(zip.entries()[0].name, "m/first");
    EXPECT_EQ(text_of(zip.find("m/first")->data), "hello");
    EXPECT_TRUE(zip.find("m/empty")->data.empty());
    EXPECT_EQ(text_of(zip.find("m/last")->data), std::string(200, 'x'));
    EXPECT_EQ(zip.find("m/other"), nullptr);
    for (const ZipEntry& entry : zip.entries()) {
      const auto offset =
          reinterpret_cast<const char*>(entry.data.data()) - archive.data();
      EXPECT_EQ(offset % 64, 0) << entry.name;
    }
  }
}

TEST(Zip, SmallLimitReallyWritesWideFields) {
  // The end record says "see the 64-bit one" for the offset.
  const std::string small = three_entries();
  const std::string wide = three_entries(0);
  EXPECT_NE(small.substr(small.size() - 6, 4), "\xff\xff\xff\xff");
  EXPECT_EQ(wide.substr(wide.size() - 6, 4), "\xff\xff\xff\xff");
}

TEST(Zip, EndRecordsMustAgree) {
  std::string archive = three_entries();
  archive[archive.size() - 12] = 2; // the short count of entries on this disk
  archive[archive.size() - 14] = 2; // and of all
  EXPECT_EQ(complaint(archive), "the two end records contradict each other");
}

TEST(Zip, MoreEntriesThanSixteenBits) {
  constexpr int kCount = 66000;
  const std::string archive = make_archive([](ZipWriter& zip) {
    for (int i = 0; i < kCount; ++i) {
      zip.add("m/" + std::to_string(i), std::to_string(i));
    }
  });
  const ZipReader zip(bytes_of(archive), "a.zip");
  ASSERT_EQ(zip.entries().size(), size_t{kCount});
  EXPECT_EQ(text_of(zip.find("m/65999")->data), "65999");
}

TEST(Zip, EveryTruncationIsRefused) {
  for (const uint64_t limit : {uint64_t{UINT32_MAX}, uint64_t{0}}) {
    const std::string archive = three_entries(limit);
    for (size_t size = 0; size < archive.size(); ++size) {
      EXPECT_NE(complaint(archive.substr(0, size)), "") << size;
      EXPECT_NE(complaint(archive.substr(archive.size() - size)), "") << size;
    }
  }
}

TEST(Zip, FlippedBitsNeverChangeWhatIsRead) {
  for (const uint64_t limit : {uint64_t{UINT32_MAX}, uint64_t{0}}) {
    const std::string archive = three_entries(limit);
    size_t refused = 0;
    for (size_t i = 0; i < archive.size() * 8; ++i) {
      std::string flipped = archive;
      flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
      if (!complaint(flipped).empty()) {
        ++refused;
        continue;
      }
      const ZipReader zip(bytes_of(flipped), "a.zip");
      ASSERT_EQ(zip.entries().size(), 3u) << i;
      EXPECT_EQ(text_of(zip.find("m/first")->data), "hello") << i;
      EXPECT_EQ(zip.find("m/empty")->data.size(), 0u) << i;
      EXPECT_EQ(text_of(zip.find("m/last")->data), std::string(200, 'x')) << i;
    }
    // What is let through is padding, dates and versions.
    EXPECT_GT(refused, archive.size() * 4);
  }
}

TEST(Zip, NamesTheEntryWithTheWrongChecksum) {
  std::string archive = three_entries();
  archive[archive.find("hello")] = 'j';
  EXPECT_EQ(
      complaint(archive),
      "the bytes of entry m/first do not match their checksum");
}

TEST(Zip, TellsExpectedAndActualSize) {
  const std::string archive = three_entries();
  EXPECT_EQ(
      complaint(archive.substr(10)),
      "the end record should begin at byte " +
          std::to_string(archive.size() - 98) + ", but it begins at " +
          std::to_string(archive.size() - 108) + " of " +
          std::to_string(archive.size() - 10) + " bytes");
  EXPECT_NE(
      complaint(archive.substr(0, 100)).find("of the 100 bytes"),
      std::string::npos);
}

TEST(Zip, RefusesDoubleNames) {
  const std::string archive = make_archive([](ZipWriter& zip) {
    zip.add("m/a", std::string_view("1"));
    zip.add("m/a", std::string_view("2"));
  });
  EXPECT_EQ(complaint(archive), "two entries are named m/a");
}

TEST(Zip, RefusesOverlap) {
  // Both entries of the table of contents point to the first one's header.
  std::string archive = make_archive([](ZipWriter& zip) {
    zip.add("m/a", std::string_view("1"));
    zip.add("m/a", std::string_view("1"));
  });
  const size_t second = archive.rfind("PK\x01\x02");
  archive.replace(second + 42, 4, std::string(4, '\0'));
  EXPECT_EQ(complaint(archive), "the entries overlap at byte 0");
}

TEST(Zip, RefusesCompression) {
  std::string archive = three_entries();
  archive[archive.find("PK\x01\x02") + 10] = 8; // deflate
  EXPECT_NE(complaint(archive).find("compressed"), std::string::npos);
}

TEST(Zip, ChecksumZeroMeansNotComputed) {
  std::string archive = make_archive(
      [](ZipWriter& zip) { zip.add("m/a", std::string_view("1")); });
  archive.replace(archive.find("PK\x07\x08") + 4, 4, std::string(4, '\0'));
  archive.replace(archive.find("PK\x01\x02") + 16, 4, std::string(4, '\0'));
  EXPECT_EQ(complaint(archive), "");
  EXPECT_FALSE(ZipReader(bytes_of(archive), "a.zip").entries()[0].has_crc());
}

} // namespace
} // namespace deepspeed::formats
