// Files are read whole, or refused with their name.
#include "deepspeed/text/byte_stream.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"
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

class File : public ::testing::Test {
 protected:
  ExitCode code_of_stamp(const std::string& path) {
    try {
      stamp_of(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), path);
      return error.code();
    }
    return ExitCode::ok;
  }

  file::TemporaryFolder folder_;
  std::string path_ = folder_.path() + "/a.txt";
};

TEST_F(File, IsReadAndCounted) {
  write_test_file(path_, "some text");
  uint64_t bytes = 0;
  EXPECT_EQ(
      read_all(*open_file(path_, stamp_of(path_), &bytes), 4), "some text");
  EXPECT_EQ(bytes, 9u);
}

TEST_F(File, MustBeARegularOne) {
  EXPECT_EQ(code_of_stamp(path_), ExitCode::no_input); // missing
  EXPECT_EQ(code_of_stamp(folder_.path()), ExitCode::no_input);
  EXPECT_EQ(code_of_stamp("/dev/null"), ExitCode::no_input);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(code_of_stamp(path_), ExitCode::no_input);
  // Put there after the stamp was taken: refused, not waited for.
  EXPECT_THROW(open_file(path_, {}), Error);
}

TEST_F(File, MustNotChangeWhileItIsRead) {
  write_test_file(path_, "some text");
  const FileStamp stamp = stamp_of(path_);
  auto stream = open_file(path_, stamp);
  std::vector<char> buffer(4);
  EXPECT_EQ(stream->read(buffer), 4u);
  std::ofstream(path_, std::ios::app) << "more";
  try {
    while (stream->read(buffer) > 0) {
    }
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(error.where(), path_);
  }
  EXPECT_THROW(open_file(path_, stamp), Error);
}

TEST_F(File, MustBeReadable) {
  write_test_file(path_, "some text");
  ASSERT_EQ(::chmod(path_.c_str(), 0), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534; // root could read it
    const bool dropped = ::geteuid() != 0 || ::setuid(kNobody) == 0;
    ::_exit(dropped ? static_cast<int>(code_of_stamp(path_)) : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ExitCode::no_input));
}

} // namespace
} // namespace deepspeed::text
