// Files that cannot be read as they should: cut short under the reader, or
// pipes, devices and links where a file is meant.
#include "deepspeed/file/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/open_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::file {
namespace {

constexpr size_t kBytes = 1 << 16;

// As a disk that fails in the middle of a file: both are SIGBUS.
class CutFile : public testing::Test {
 protected:
  CutFile() {
    write_file_atomically(path_, std::string(kBytes, 'x'));
    file_ = MappedFile(path_);
  }
  void cut() {
    std::filesystem::resize_file(path_, kBytes / 2);
  }
  size_t count() const {
    size_t n = 0;
    // Read even where the result is not used.
    const volatile std::byte* const bytes = file_.bytes().data();
    for (size_t i = 0; i < file_.bytes().size(); ++i) {
      n += bytes[i] == std::byte{'x'} ? 1 : 0;
    }
    return n;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() + "/a";
  MappedFile file_;
};

TEST_F(CutFile, IsAnErrorThatNamesFileAndPlace) {
  EXPECT_EQ(file_.checked([&] { return count(); }), kBytes);
  cut();
  try {
    file_.checked([&] { return count(); });
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    EXPECT_EQ(error.where(), path_);
    EXPECT_NE(
        std::string(error.what()).find(std::to_string(kBytes / 2)),
        std::string::npos);
  }
}

TEST_F(CutFile, IsTheReasonOfWhatItsZerosLedTo) {
  cut();
  const auto read = [&]() -> int {
    throw base::Error(base::ExitCode::config, std::to_string(count()), "", "");
  };
  EXPECT_THROW(
      {
        try {
          file_.checked(read);
        } catch (const base::Error& error) {
          EXPECT_EQ(error.code(), base::ExitCode::data);
          throw;
        }
      },
      base::Error);
}

TEST_F(CutFile, EndsTheProcessInWordsWhereNobodyChecks) {
  EXPECT_EXIT(
      {
        cut();
        ::_exit(count() == 0 ? 1 : 0);
      },
      testing::ExitedWithCode(74),
      "cannot be read.*\n.*/a\n");
}

TEST_F(CutFile, ANewMappingForgetsTheFault) {
  cut();
  EXPECT_THROW(file_.checked([&] { return count(); }), base::Error);
  file_ = MappedFile(path_);
  EXPECT_EQ(file_.checked([&] { return count(); }), kBytes / 2);
}

TEST(OpenToRead, NeitherBlocksNorTakesWhatIsNoFile) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THROW(read_file(path, 10), base::Error);
  EXPECT_THROW(MappedFile{path}, base::Error);
  EXPECT_THROW(read_file("/dev/zero", 10), base::Error);
  EXPECT_THROW(read_file(folder.path(), 10), base::Error);
  EXPECT_EQ(read_file("/dev/null", 10), "");
  std::filesystem::create_symlink("loop", folder.path() + "/loop");
  EXPECT_THROW(read_file(folder.path() + "/loop", 10), base::Error);
}

TEST(OpenToRead, TakesADescriptorThatWasGiven) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_EQ(::write(ends[1], "abc", 3), 3);
  ::close(ends[1]);
  EXPECT_EQ(read_file("/dev/fd/" + std::to_string(ends[0]), 10), "abc");
  ::close(ends[0]);
}

TEST(OpenToAppend, FollowsNoLinkAndWaitsForNoReader) {
  const TemporaryFolder folder;
  const std::string target = folder.path() + "/target";
  write_file_atomically(target, "mine");
  std::filesystem::create_symlink(target, folder.path() + "/link");
  EXPECT_THROW(open_to_append(folder.path() + "/link"), base::Error);
  EXPECT_EQ(read_file(target, 10), "mine");
  const std::string fifo = folder.path() + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THROW(open_to_append(fifo), base::Error);
}

TEST(TemporaryName, IsOursAlone) {
  const TemporaryFolder folder;
  std::set<std::string> names;
  {
    const AtomicFile a(folder.path() + "/a");
    const AtomicFile b(folder.path() + "/a");
    for (const auto& entry :
         std::filesystem::directory_iterator(folder.path())) {
      names.insert(entry.path().filename().string());
      EXPECT_TRUE(is_temporary_name(entry.path().filename().string()));
    }
  }
  EXPECT_EQ(names.size(), 2u);
  // No part of the name may come from the process: containers share its id.
  EXPECT_EQ(
      names.begin()->find("-" + std::to_string(::getpid()) + "-"),
      std::string::npos);
  EXPECT_TRUE(is_temporary_name("a.tmp-12-0")); // of older versions
  for (const char* name :
       {"notes.tmp-old",
        "a.tmp-",
        "a.tmp-12",
        "a.tmp-12-",
        "a.tmp-1-2.txt",
        "a.tmp-0123456789abcdeg",
        ".tmp-0123456789abcdef"}) {
    EXPECT_FALSE(is_temporary_name(name)) << name;
  }
}

} // namespace
} // namespace deepspeed::file
