// Power cuts, failing calls and file systems without locks.
#include "deepspeed/file/file_system.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <filesystem>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/file/append_file.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_lock.h"
#include "deepspeed/file/random_name.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/file/test_file_system.h"

namespace deepspeed::file {
namespace {

using test::Operation;
using test::RecordingFileSystem;
using test::Tree;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What a reader finds in "a" after power cuts before `end` and at the end, when
// "old" was there and "new" was written.
struct Found {
  std::set<std::string> before;
  std::set<std::string> after;
};

Found after_replacing(std::function<bool(const Operation&)> lies) {
  TemporaryFolder folder;
  RecordingFileSystem files(folder.path());
  const FileSystemScope scope(files);
  write_file_atomically(folder.path() + "/a", "old");
  const size_t begin = files.operations().size();
  files.lies = std::move(lies);
  write_file_atomically(folder.path() + "/a", "new");
  const size_t end = files.operations().size();
  const auto look = [&](size_t n, std::set<std::string>& found) {
    for (const Tree& tree : files.after_power_cut(n)) {
      const auto file = tree.find("/a");
      found.insert(file == tree.end() ? "none" : *file->second);
    }
  };
  Found found;
  for (size_t n = begin; n < end; ++n) {
    look(n, found.before);
  }
  look(end, found.after);
  return found;
}

TEST(PowerCut, AnAtomicFileIsTheOldOrTheNewOne) {
  const Found found = after_replacing({});
  EXPECT_THAT(found.before, ElementsAre("new", "old"));
  EXPECT_THAT(found.after, ElementsAre("new"));
}

// What the test above would say without one of the syncs.
TEST(PowerCut, ShowsWhichSyncIsMissing) {
  const Found bytes =
      after_replacing([](const Operation& sync) { return !sync.is_folder; });
  EXPECT_THAT(bytes.before, ElementsAre("", "new", "old"));
  EXPECT_THAT(bytes.after, ElementsAre("", "new"));
  const Found names =
      after_replacing([](const Operation& sync) { return sync.is_folder; });
  EXPECT_THAT(names.after, ElementsAre("new", "old"));
}

TEST(PowerCut, FoldersThatWereMadeStay) {
  TemporaryFolder folder;
  RecordingFileSystem files(folder.path());
  const FileSystemScope scope(files);
  make_folders(folder.path() + "/a/b/");
  make_folders(folder.path() + "/a/b/c");
  const Tree all = {{"/a", {}}, {"/a/b", {}}, {"/a/b/c", {}}};
  EXPECT_EQ(test::tree_of(folder.path()), all);
  EXPECT_THAT(
      files.after_power_cut(files.operations().size()), ElementsAre(all));
}

TEST(Folders, AFileInTheWayIsAnError) {
  TemporaryFolder folder;
  write_file_atomically(folder.path() + "/a", "");
  EXPECT_EQ(try_make_folders(folder.path() + "/a/b").value(), ENOTDIR);
  EXPECT_EQ(try_make_folders(folder.path() + "/a").value(), ENOTDIR);
  EXPECT_EQ(try_make_folders("").value(), EINVAL);
  EXPECT_FALSE(try_make_folders("."));
  EXPECT_THROW(make_folders(folder.path() + "/a"), base::Error);
}

// Whatever fails: an error, the old file and nothing beside it.
TEST(AtomicFile, EachCallMayFail) {
  size_t failed = 0;
  for (size_t victim = 0;; ++victim) {
    TemporaryFolder folder;
    const std::string path = folder.path() + "/a";
    RecordingFileSystem files(folder.path());
    const FileSystemScope scope(files);
    write_file_atomically(path, "old");
    size_t calls = 0;
    bool is_removed = false; // calls that clean up must not fail, too
    Operation::Kind kind{};
    files.fault = [&](const Operation& operation) {
      kind = calls == victim ? operation.kind : kind;
      is_removed |= operation.kind == Operation::remove;
      return calls++ == victim ? EIO : 0;
    };
    try {
      write_file_atomically(path, "new");
      break;
    } catch (const base::Error& error) {
      ++failed;
      EXPECT_THAT(error.what(), HasSubstr("Input/output error"));
    }
    // With the sync of the folder it has happened, and may not last.
    const bool renamed = kind == Operation::sync && !is_removed;
    EXPECT_EQ(
        test::tree_of(folder.path()), (Tree{{"/a", renamed ? "new" : "old"}}))
        << victim;
  }
  EXPECT_EQ(failed, 5u); // create, write, sync, rename, sync of the folder
}

// Answers to flock(), one after the other; the last one stays.
class Locks : public FileSystem {
 public:
  explicit Locks(std::vector<int> errors) : errors_(std::move(errors)) {}
  int lock(int) override {
    errno = errors_[std::min(calls++, errors_.size() - 1)];
    return errno == 0 ? 0 : -1;
  }
  size_t calls = 0;

 private:
  std::vector<int> errors_;
};

FileLock::Attempt attempt(const std::vector<int>& errors) {
  TemporaryFolder folder;
  Locks locks(errors);
  const FileSystemScope scope(locks);
  const auto result =
      FileLock(folder.path() + "/lock", "cannot make").try_lock();
  EXPECT_EQ(locks.calls, errors.size());
  return result;
}

TEST(FileLock, TellsHeldFromInterruptedFromNoLocks) {
  EXPECT_EQ(attempt({0}), FileLock::Attempt::locked);
  EXPECT_EQ(attempt({EWOULDBLOCK}), FileLock::Attempt::held);
  EXPECT_EQ(attempt({EINTR, EINTR, EWOULDBLOCK}), FileLock::Attempt::held);
  EXPECT_EQ(attempt({EINTR, 0}), FileLock::Attempt::locked);
  for (const int error : {ENOLCK, ENOSYS, EOPNOTSUPP, EBADF, EINVAL}) {
    EXPECT_EQ(attempt({error}), FileLock::Attempt::no_locks) << error;
  }
  EXPECT_THROW(attempt({EIO}), base::Error);
}

TEST(FileLock, TellsItsHolder) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/lock";
  FileLock one(path, "cannot make");
  EXPECT_EQ(one.try_lock(), FileLock::Attempt::locked);
  EXPECT_EQ(one.holder(), "another process");
  one.tell("a long name\t");
  FileLock other(path, "cannot make");
  EXPECT_EQ(other.try_lock(), FileLock::Attempt::held);
  EXPECT_EQ(other.holder(), "a long name?");
  one.tell("short");
  EXPECT_EQ(read_file(path, 100), "short\n");
  one = FileLock();
  EXPECT_EQ(other.try_lock(), FileLock::Attempt::locked);
}

TEST(FileLock, IsNeitherALinkNorAFolder) {
  TemporaryFolder folder;
  std::filesystem::create_symlink("target", folder.path() + "/link");
  EXPECT_THROW(FileLock(folder.path() + "/link", ""), base::Error);
  EXPECT_THROW(FileLock(folder.path(), ""), base::Error);
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/target"));
}

TEST(AppendFile, IsClosedAtTheFirstFailure) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/log";
  RecordingFileSystem files(folder.path());
  const FileSystemScope scope(files);
  AppendFile log(path);
  EXPECT_TRUE(log.is_empty());
  log.append("one\n");
  EXPECT_FALSE(log.is_empty());
  files.fault = [](const Operation&) { return ENOSPC; };
  ::testing::internal::CaptureStderr();
  log.append("two\n");
  files.fault = {};
  log.append("three\n");
  EXPECT_THAT(
      ::testing::internal::GetCapturedStderr(),
      HasSubstr("cannot write " + path + ": No space left on device"));
  EXPECT_EQ(read_file(path, 100), "one\n");
}

TEST(RandomName, HasEachCharacterOfTheAlphabet) {
  const std::string name = random_name(4000, "abc");
  EXPECT_EQ(name.size(), 4000u);
  for (const char letter : {'a', 'b', 'c'}) {
    // A third, within eight standard deviations.
    EXPECT_NEAR(std::count(name.begin(), name.end(), letter), 1333, 240);
  }
  EXPECT_NE(random_name(16), random_name(16));
  EXPECT_EQ(random_name(0), "");
}

} // namespace
} // namespace deepspeed::file
