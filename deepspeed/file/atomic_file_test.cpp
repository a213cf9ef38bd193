// Files appear whole or not at all.
#include "deepspeed/file/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/file/mapped_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::file {
namespace {

TEST(AtomicFile, AppearsOnlyWithCommit) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  {
    AtomicFile file(path);
    file.write("half");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  {
    AtomicFile file(path);
    file.write("whole");
    EXPECT_FALSE(std::filesystem::exists(path));
    file.commit();
  }
  EXPECT_EQ(read_file(path, 100), "whole");
  EXPECT_EQ(
      std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(AtomicFile, LargeWritesPassTheBuffer) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  const std::string block(3 << 20, 'x');
  AtomicFile file(path);
  file.write("head");
  file.write(block);
  file.write("tail");
  EXPECT_EQ(file.size(), block.size() + 8);
  file.commit();
  EXPECT_EQ(read_file(path, 1 << 23), "head" + block + "tail");
}

TEST(AtomicFile, ALimitLeavesTheOldFile) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  write_file_atomically(path, "old");
  const rlimit small{1 << 20, RLIM_INFINITY};
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  try {
    AtomicFile file(path);
    file.write(std::string(2 << 20, 'x'));
    file.commit();
    ADD_FAILURE() << "wrote past the limit";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::io);
    EXPECT_NE(error.report().find(path), std::string::npos);
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(read_file(path, 100), "old");
}

TEST(AtomicFile, NamesTheFolderThatIsMissing) {
  try {
    AtomicFile file("/no/such/folder/a");
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::cannot_create);
    EXPECT_EQ(error.where(), "/no/such/folder/a");
  }
}

TEST(RemoveTemporaryFiles, LeavesWholeFiles) {
  TemporaryFolder folder;
  write_file_atomically(folder.path() + "/whole", "1");
  write_file_atomically(folder.path() + "/half.tmp-1234-0", "2");
  remove_temporary_files(folder.path());
  EXPECT_TRUE(std::filesystem::exists(folder.path() + "/whole"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/half.tmp-1234-0"));
  remove_temporary_files(folder.path() + "/none"); // nothing to do
  for (const char* name :
       {"/notes.tmp-1.txt", "/a.tmp-", "/a.tmp-1", "/a.tmp-x-1", "/.tmp-1-2"}) {
    write_file_atomically(folder.path() + name, "a user's");
    remove_temporary_files(folder.path());
    EXPECT_TRUE(std::filesystem::exists(folder.path() + name)) << name;
  }
}

TEST(ReadFile, RefusesWhatIsTooLarge) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  write_file_atomically(path, "12345");
  EXPECT_EQ(read_file(path, 5), "12345");
  EXPECT_THROW(read_file(path, 4), base::Error);
}

TEST(MappedFile, ShowsTheBytes) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  write_file_atomically(path, "abc");
  MappedFile file(path);
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes().size(), 3u);
  EXPECT_EQ(moved.bytes()[2], std::byte{'c'});
  EXPECT_THROW(MappedFile(folder.path()), base::Error);
  EXPECT_THROW(MappedFile(path + "x"), base::Error);
  write_file_atomically(path, "");
  EXPECT_TRUE(MappedFile(path).bytes().empty());
}

} // namespace
} // namespace deepspeed::file
