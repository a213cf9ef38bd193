// TensorBoard event files, decoded by hand.
#include "deepspeed/report/event_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bit>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <regex>

#include "deepspeed/base/crc32c.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::report {
namespace {

// RFC 3720, section B.4, and the check value of the polynomial.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(base::crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(base::crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(base::crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(base::crc32c(""), 0u);
}

TEST(Crc32c, TableAndInstructionAgree) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(base::crc32c(bytes), base::crc32c_by_table(bytes)) << i;
    bytes += static_cast<char>(i * 37 + i / 7);
  }
}

template <typename Integer>
Integer read_integer(const std::string& bytes, size_t at) {
  Integer value{};
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// The records of a TFRecord file, with their checksums checked.
std::vector<std::string> records_of(const std::string& path) {
  const std::string bytes = file::read_file(path, 1 << 20);
  std::vector<std::string> records;
  size_t at = 0;
  while (at < bytes.size()) {
    const auto length = read_integer<uint64_t>(bytes, at);
    EXPECT_EQ(
        read_integer<uint32_t>(bytes, at + 8),
        base::masked_crc32c(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(
        read_integer<uint32_t>(bytes, at + 12 + length),
        base::masked_crc32c(records.back()));
    at += 16 + length;
  }
  EXPECT_EQ(at, bytes.size());
  return records;
}

TEST(EventFile, HasTensorBoardsNameAndFirstRecord) {
  const file::TemporaryFolder folder;
  const EventFile file(folder.path());
  EXPECT_TRUE(std::regex_match(
      file.path().substr(folder.path().size() + 1),
      std::regex(R"(events\.out\.tfevents\.\d{10,}\..+\.\d+\.0)")));
  const auto records = records_of(file.path());
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(
      records[0].substr(9),
      "\x1a\x0d"
      "brain.Event:2");
}

TEST(EventFile, WritesScalars) {
  const file::TemporaryFolder folder;
  EventFile file(folder.path());
  file.add_scalar("Train/loss", 6.5, 300);
  EXPECT_EQ(records_of(file.path()).size(), 1u); // not flushed yet
  file.flush();
  const auto records = records_of(file.path());
  ASSERT_EQ(records.size(), 2u);
  // wall_time, then step 300, then summary { value { tag, simple_value 6.5 } }.
  EXPECT_EQ(records[1][0], '\x09');
  const auto wall_time =
      std::bit_cast<double>(read_integer<uint64_t>(records[1], 1));
  EXPECT_NEAR(wall_time, static_cast<double>(std::time(nullptr)), 60);
  EXPECT_EQ(
      records[1].substr(9),
      std::string("\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0aTrain/loss\x15", 20) +
          std::string("\x00\x00\xd0\x40", 4));
}

TEST(EventFile, AResumeDropsLaterStepsOfOlderFiles) {
  const file::TemporaryFolder folder;
  EventFile file(folder.path());
  file.start_after(0); // a new run: there is nothing to drop
  EXPECT_EQ(records_of(file.path()).size(), 1u);
  file.start_after(30);
  const auto records = records_of(file.path());
  ASSERT_EQ(records.size(), 2u);
  // step 31, session_log { status START }, as SummaryWriter's purge_step.
  EXPECT_EQ(records[1].substr(9), std::string("\x10\x1f\x3a\x02\x08\x01"));
  // A run that was cut off before its first checkpoint begins once more.
  EventFile again(folder.path());
  again.start_after(0);
  EXPECT_EQ(
      records_of(again.path()).at(1).substr(9),
      std::string("\x10\x01\x3a\x02\x08\x01"));
}

TEST(EventFile, MakesItsFolderButFollowsNoLink) {
  const file::TemporaryFolder folder;
  EXPECT_EQ(records_of(EventFile(folder.path() + "/tb_dir").path()).size(), 1u);
  std::filesystem::create_directory_symlink(
      folder.path(), folder.path() + "/link");
  EXPECT_THROW(EventFile(folder.path() + "/link"), base::Error);
}

TEST(EventFile, TwoInOneSecondDoNotMeet) {
  const file::TemporaryFolder folder;
  const EventFile first(folder.path());
  const EventFile second(folder.path());
  EXPECT_NE(first.path(), second.path());
}

TEST(EventFile, AFullDiskWarnsOnce) {
  const file::TemporaryFolder folder;
  EventFile file(folder.path());
  // A limit on the size of files stands for the full disk.
  EXPECT_EXIT(
      {
        ::signal(SIGXFSZ, SIG_IGN);
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = 1000; // holds for standard error too
        ::setrlimit(RLIMIT_FSIZE, &limit);
        for (int step = 0; step < 100; ++step) {
          file.add_scalar("Train/loss", 1.0, step);
          file.flush();
        }
        ::_exit(0);
      },
      testing::ExitedWithCode(0),
      "^warning: cannot write [^\n]*File too large[^\n]*\n$");
}

TEST(EventFile, AMissingFolderIsAnError) {
  EXPECT_THROW(EventFile("/nonexistent/folder"), base::Error);
}

} // namespace
} // namespace deepspeed::report
