// A cache is made once, by one program, and made again when anything changed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/text/cache_lock.h"
#include "deepspeed/text/source_files.h"
#include "deepspeed/text/test_files.h"
#include "deepspeed/text/test_tokenizer.h"
#include "deepspeed/text/token_cache.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

// `lines` lines of letters a and b, of different lengths.
std::string some_lines(int lines) {
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < lines; ++i) {
    for (uint32_t j = 0, n = 1 + random() % 700; j < n; ++j) {
      text += random() % 2 == 0 ? 'a' : 'b';
    }
    text += '\n';
  }
  return text;
}

class CacheFolderTest : public ::testing::Test {
 protected:
  CacheFolderTest() {
    path_ = folder_.path() + "/train.txt";
    request_.cache_dir = folder_.path() + "/cache/deeper";
    request_.threads = 2;
    request_.progress = [this](uint64_t, uint64_t) { built_ = true; };
  }

  TokenCache open() {
    built_ = false;
    request_.source = list_source(path_);
    return open_or_build(request_, tokenizer_);
  }
  void write(std::string_view text) {
    write_test_file(path_, text);
  }
  // Long ago, so that the stamps count.
  void settle() {
    fs::last_write_time(
        path_, fs::file_time_type::clock::now() - std::chrono::hours(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  }
  std::vector<std::string> cache_files(const std::string& start) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(request_.cache_dir)) {
      if (entry.path().filename().string().starts_with(start)) {
        names.push_back(entry.path());
      }
    }
    return names;
  }
  static std::vector<int32_t> sample(const TokenCache& cache, uint64_t i) {
    std::vector<int32_t> ids(cache.length(i));
    cache.copy(i, kMaxSampleIds, ids.data());
    return ids;
  }

  file::TemporaryFolder folder_;
  std::string path_;
  CacheRequest request_;
  std::shared_ptr<const Tokenizer> tokenizer_ = byte_tokenizer();
  bool built_ = false;
};

TEST_F(CacheFolderTest, HoldsTheSamplesInOrder) {
  const std::string text = some_lines(30000); // more than one round of reading
  write(text);
  const TokenCache cache = open();
  EXPECT_TRUE(built_);
  ASSERT_EQ(cache.size(), 30000u);
  size_t begin = 0;
  uint64_t tokens = 0;
  for (uint64_t i = 0; i < cache.size(); ++i) {
    const size_t end = text.find('\n', begin);
    const size_t n = std::min<size_t>(end - begin, kMaxSampleIds);
    const std::vector<int32_t> ids = sample(cache, i);
    ASSERT_EQ(ids.size(), n) << "sample " << i;
    for (size_t j = 0; j < n; ++j) {
      ASSERT_EQ(ids[j], 4 + text[begin + j]);
    }
    tokens += n;
    begin = end + 1;
  }
  EXPECT_EQ(cache.tokens(), tokens);
  // The number of threads changes nothing.
  CacheRequest in_memory = request_;
  in_memory.cache_dir = "";
  in_memory.threads = 5;
  const TokenCache other = open_or_build(in_memory, tokenizer_);
  EXPECT_EQ(other.path(), "");
  EXPECT_EQ(other.key(), cache.key());
  for (uint64_t i = 0; i < cache.size(); ++i) {
    ASSERT_EQ(sample(other, i), sample(cache, i));
  }
}

TEST_F(CacheFolderTest, IsMadeOnce) {
  write("a\nb\n");
  const std::string path = open().path();
  EXPECT_TRUE(built_);
  EXPECT_EQ(cache_files("stamp-").size(), 0u); // the file is too new
  settle();
  EXPECT_EQ(open().path(), path); // found by its content
  EXPECT_FALSE(built_);
  EXPECT_EQ(cache_files("stamp-").size(), 1u);
  EXPECT_EQ(open().path(), path); // found by its stamp
  EXPECT_FALSE(built_);
  // A copy of the file elsewhere is the same source.
  fs::create_directories(folder_.path() + "/copy");
  fs::copy(path_, folder_.path() + "/copy/train.txt");
  path_ = folder_.path() + "/copy/train.txt";
  EXPECT_EQ(open().path(), path);
  EXPECT_FALSE(built_);
}

TEST_F(CacheFolderTest, FollowsAnEditOfTheSource) {
  write("a\nb\n");
  open();
  write("a\nc\n"); // at once, and of the same size
  EXPECT_EQ(sample(open(), 1), (std::vector<int32_t>{4 + 'c'}));
  EXPECT_TRUE(built_);
  settle();
  open();
  EXPECT_FALSE(built_);
  write("a\nd\n");
  EXPECT_EQ(sample(open(), 1), (std::vector<int32_t>{4 + 'd'}));
  EXPECT_TRUE(built_);
}

TEST_F(CacheFolderTest, BelongsToTokenizerAndTextColumn) {
  path_ = folder_.path() + "/train.jsonl";
  write(R"({"text": "ab", "title": "c"})");
  EXPECT_EQ(open().tokens(), 2u);
  tokenizer_ = byte_tokenizer(/*merge_ab=*/true);
  EXPECT_EQ(open().tokens(), 1u);
  EXPECT_TRUE(built_);
  request_.text_column = "title";
  EXPECT_EQ(sample(open(), 0), (std::vector<int32_t>{4 + 'c'}));
  EXPECT_TRUE(built_);
}

TEST_F(CacheFolderTest, TakesAFolderInTheOrderOfItsNames) {
  path_ = folder_.path() + "/texts";
  fs::create_directories(path_ + "/z");
  write_test_file(path_ + "/b.txt", "b\n");
  write_test_file(path_ + "/a.txt.gz", gzip("a"));
  write_test_file(path_ + "/z/c.txt.zst", zstd("c\n"));
  const TokenCache cache = open();
  ASSERT_EQ(cache.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sample(cache, i), (std::vector<int32_t>{4 + 'a' + i}));
  }
}

TEST_F(CacheFolderTest, MakesADamagedCacheAgain) {
  write("a\nb\n");
  const std::string path = open().path();
  const std::string good = file::read_file(path, 10000);
  for (size_t at : {size_t{0}, size_t{9}, good.size() - 1}) {
    std::string bad = good;
    bad[at] ^= 1;
    write_test_file(path, bad);
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(open().size(), 2u);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("damaged"), std::string::npos) << said;
    EXPECT_EQ(said.find("damaged"), said.rfind("damaged")) << said; // once
    EXPECT_TRUE(built_);
    EXPECT_EQ(file::read_file(path, 10000), good);
  }
  write_test_file(path, good.substr(0, good.size() / 2));
  EXPECT_EQ(open().size(), 2u);
  EXPECT_TRUE(built_);
}

TEST_F(CacheFolderTest, RefusesTheCacheOfAnotherSource) {
  write("a\nb\n");
  const std::string first = open().path();
  write("c\n");
  const std::string second = open().path();
  fs::copy_file(first, second, fs::copy_options::overwrite_existing);
  EXPECT_EQ(open().size(), 1u);
  EXPECT_TRUE(built_);
}

TEST_F(CacheFolderTest, StaysInMemoryWhenTheFolderCannotBeWritten) {
  write("a\nb\n");
  write_test_file(folder_.path() + "/file", "x");
  for (const std::string& dir :
       {folder_.path() + "/file/cache", std::string("/proc/none")}) {
    request_.cache_dir = dir;
    ::testing::internal::CaptureStderr();
    const TokenCache cache = open();
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("kept in memory"), std::string::npos) << said;
    EXPECT_EQ(cache.size(), 2u);
    EXPECT_EQ(cache.path(), "");
  }
}

ExitCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::ok;
}

TEST_F(CacheFolderTest, SourcesWithoutTextAreRefused) {
  EXPECT_EQ(code_of([&] { open(); }), ExitCode::no_input); // missing
  for (const char* text : {"", "\n\n \r\n", "\xEF\xBB\xBF"}) {
    write(text);
    EXPECT_EQ(code_of([&] { open(); }), ExitCode::data);
  }
  write(std::string(10'000'000, '\n'));
  EXPECT_EQ(code_of([&] { open(); }), ExitCode::data);
  for (const std::string& name : cache_files("tokens-")) {
    EXPECT_TRUE(name.ends_with(".lock")) << name;
  }
}

TEST_F(CacheFolderTest, SaysOnceWhatItReplaced) {
  write("a\xff\nb\n\xfe\n");
  ::testing::internal::CaptureStderr();
  open();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("2 of 3 samples"), std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

// Runs `action` in a child process; its exit status.
pid_t start_child(const std::function<void()>& action) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    try {
      action();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

TEST_F(CacheFolderTest, TwoProgramsAtOnceMakeItOnce) {
  write(some_lines(20000));
  const std::string log = folder_.path() + "/builds";
  request_.source = list_source(path_);
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(start_child([&] {
      bool said = false;
      request_.progress = [&](uint64_t, uint64_t) {
        if (!said) {
          std::ofstream(log, std::ios::app) << "x" << std::flush;
        }
        said = true;
      };
      const TokenCache cache = open_or_build(request_, tokenizer_);
      ::_exit(cache.size() == 20000 && !cache.path().empty() ? 0 : 2);
    }));
  }
  for (pid_t child : children) {
    EXPECT_EQ(wait_for(child), 0);
  }
  EXPECT_EQ(file::read_file(log, 100), "x");
  EXPECT_EQ(open().size(), 20000u);
  EXPECT_FALSE(built_);
}

TEST_F(CacheFolderTest, AKilledProgramLeavesNoWrongCache) {
  write(some_lines(30000));
  request_.source = list_source(path_);
  const int status = wait_for(start_child([&] {
    request_.progress = [](uint64_t done, uint64_t total) {
      if (done > total / 2) {
        ::raise(SIGKILL);
      }
    };
    open_or_build(request_, tokenizer_);
  }));
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  const auto left = cache_files("tokens-");
  ASSERT_EQ(left.size(), 2u); // a lock and a temporary file
  EXPECT_EQ(open().size(), 30000u);
  EXPECT_TRUE(built_);
  for (const std::string& name : cache_files("tokens-")) {
    EXPECT_FALSE(file::is_temporary_name(name)) << name;
  }
}

TEST_F(CacheFolderTest, AFailureInTheMiddleLeavesNothing) {
  path_ = folder_.path() + "/train.jsonl";
  std::string text;
  for (int i = 0; i < 300000; ++i) {
    text += "{\"text\": \"abcdefghijklmn\"}\n";
  }
  write(text + "{");
  EXPECT_EQ(code_of([&] { open(); }), ExitCode::data);
  for (const std::string& name : cache_files("tokens-")) {
    EXPECT_TRUE(name.ends_with(".lock")) << name;
  }
}

class LockFaults : public file::FileSystem {
 public:
  std::vector<int> errors; // what the next calls answer, the last one first

  int lock(int fd) override {
    if (errors.empty()) {
      return FileSystem::lock(fd);
    }
    errno = errors.back();
    errors.pop_back();
    return -1;
  }
};

// Without a lock another program may be writing its own: that stays.
TEST_F(CacheFolderTest, OnlyALockThatIsHeldRemovesWhatOthersLeft) {
  write("a\n");
  const std::string path = open().path();
  const std::string left = path + ".tmp-0123456789abcdef";
  LockFaults files;
  const file::FileSystemScope scope(files);
  std::string said;
  const auto stays_with = [&](std::vector<int> errors) {
    fs::remove(path);
    write_test_file(left, "half");
    files.errors = std::move(errors);
    ::testing::internal::CaptureStderr();
    open();
    said = ::testing::internal::GetCapturedStderr();
    EXPECT_TRUE(files.errors.empty());
    EXPECT_TRUE(built_);
    return fs::exists(left);
  };
  for (const int missing : {ENOSYS, ENOLCK, EOPNOTSUPP, EINVAL}) {
    EXPECT_TRUE(stays_with({missing})) << missing;
    EXPECT_NE(said.find("has no locks"), said.npos) << said;
  }
  EXPECT_FALSE(stays_with({}));
  EXPECT_EQ(said.find("has no locks"), said.npos) << said;
  EXPECT_FALSE(stays_with({EINTR, EINTR}));
}

class Waiting : public CacheFolderTest {
 protected:
  // Has a lock of the cache taken by another process, which never ends by
  // itself; returns what open() throws, or "".
  std::string wait(bool shows_progress = false) {
    write("a\nb\n");
    const std::string cache = open().path();
    fs::remove(cache);
    const std::string lock = cache.substr(0, cache.size() - 4) + ".lock";
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    const pid_t child = start_child([&] {
      CacheLock held(lock, std::chrono::seconds(1), {});
      [[maybe_unused]] const ssize_t n = ::write(ready[1], "x", 1);
      for (uint64_t i = 1; shows_progress && i < 3; ++i) {
        ::usleep(1'200'000);
        held.show(i << 20, 3 << 20);
      }
      while (!shows_progress) {
        ::pause();
      }
    });
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    std::string thrown;
    ::testing::internal::CaptureStderr();
    try {
      open();
    } catch (const Error& error) {
      thrown =
          std::to_string(static_cast<int>(error.code())) + " " + error.what();
    }
    said_ = ::testing::internal::GetCapturedStderr();
    holder_ = "pid " + std::to_string(child);
    ::kill(child, SIGKILL);
    wait_for(child);
    ::close(ready[0]);
    ::close(ready[1]);
    return thrown;
  }

  std::string said_;
  std::string holder_;
};

TEST_F(Waiting, EndsWithASignal) {
  int asked = 0;
  request_.stopped = [&] { return ++asked > 4; }; // open() asks, too
  EXPECT_TRUE(wait().starts_with("75 "));
  EXPECT_NE(said_.find(holder_), std::string::npos) << said_;
}

TEST_F(Waiting, EndsWhenTheHolderDoesNotGetOn) {
  request_.patience = std::chrono::milliseconds(100);
  const std::string thrown = wait();
  EXPECT_TRUE(thrown.starts_with("69 ")) << thrown;
  EXPECT_NE(thrown.find(holder_), std::string::npos) << thrown;
}

TEST_F(Waiting, HasPatienceWithOneThatGetsOn) {
  request_.patience = std::chrono::milliseconds(1900); // it takes 2.4 s
  EXPECT_EQ(wait(/*shows_progress=*/true), "");
}

TEST_F(CacheFolderTest, ASignalEndsReadingAndTokenizing) {
  write(some_lines(20000));
  int asked = 0;
  int until = 0; // 0 counts
  request_.stopped = [&] { return ++asked == until; };
  open();
  const int all = asked;
  ASSERT_GE(all, 3);
  for (until = 1; until < all; until += std::max(1, all / 4)) {
    asked = 0;
    fs::remove_all(request_.cache_dir);
    EXPECT_EQ(code_of([&] { open(); }), ExitCode::stopped) << until;
  }
}

TEST_F(CacheFolderTest, ReplacesTheFilesOfOtherVersionsWithoutAWord) {
  write("a\nb\n");
  const std::string path = open().path();
  const std::string good = file::read_file(path, 10000);
  std::string old = good;
  old[7] = '1';
  write_test_file(path, old);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(open().size(), 2u);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(file::read_file(path, 10000), good);
}

// Too large to be checked whole when it is opened.
TEST_F(CacheFolderTest, NoticesDamageOfALargeCacheWhereItIsRead) {
  std::string line;
  for (int i = 0; i < 510; ++i) {
    line += static_cast<char>('a' + i % 26);
  }
  std::string text;
  for (int i = 0; i < 70'000; ++i) {
    text += line + "\n";
  }
  write(text);
  const std::string path = open().path();
  ASSERT_GT(fs::file_size(path), uint64_t{64} << 20);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20 << 20);
    const std::string zeros(40 << 20, '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  const TokenCache cache = open();
  EXPECT_FALSE(built_);
  EXPECT_EQ(sample(cache, 0).size(), 510u);
  EXPECT_EQ(sample(cache, 69'999).size(), 510u);
  try {
    sample(cache, 35'000);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(error.where(), path);
    EXPECT_NE(std::string(error.hint()).find("removed"), std::string::npos);
  }
  EXPECT_EQ(sample(open(), 35'000).size(), 510u);
  EXPECT_TRUE(built_);
}

TEST(DefaultCacheDir, FollowsTheEnvironment) {
  ::setenv("HOME", "/users/x", 1);
  ::unsetenv("XDG_CACHE_HOME");
  ::unsetenv("DEEPSPEED_CACHE_DIR");
  EXPECT_EQ(default_cache_dir(), "/users/x/.cache/deepspeed.cpp");
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(default_cache_dir(), "/xdg/deepspeed.cpp");
  ::setenv("DEEPSPEED_CACHE_DIR", "/own", 1);
  EXPECT_EQ(default_cache_dir(), "/own");
  ::unsetenv("HOME");
  ::unsetenv("XDG_CACHE_HOME");
  ::unsetenv("DEEPSPEED_CACHE_DIR");
  EXPECT_EQ(default_cache_dir(), "");
}

} // namespace
} // namespace deepspeed::text
