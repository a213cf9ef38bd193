// The lines that the program `tokenize` reads and writes.
#include "deepspeed/text/tokenizer_lines.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/text/test_tokenizer.h"

namespace deepspeed::text {
namespace {

using ::testing::HasSubstr;

// Descriptors of a file with `text`, and of an empty one.
class Files {
 public:
  explicit Files(std::string_view text) {
    file::write_file_atomically(folder_.path() + "/in", text);
    in = ::open((folder_.path() + "/in").c_str(), O_RDONLY);
    out = ::open((folder_.path() + "/out").c_str(), O_WRONLY | O_CREAT, 0600);
  }
  ~Files() {
    ::close(in);
    ::close(out);
  }
  std::string written() const {
    return file::read_file(folder_.path() + "/out", 1 << 26);
  }

  int in = -1;
  int out = -1;

 private:
  file::TemporaryFolder folder_;
};

std::string to_ids(std::string_view text, const LineOptions& options = {}) {
  const Files files(text);
  EXPECT_TRUE(
      tokenize_lines(byte_tokenizer(true), options, files.in, files.out));
  return files.written();
}

std::string to_text(std::string_view ids, const LineOptions& options = {}) {
  const Files files(ids);
  EXPECT_TRUE(
      detokenize_lines(*byte_tokenizer(true), options, files.in, files.out));
  return files.written();
}

TEST(TokenizerLines, EachLineIsOneSample) {
  EXPECT_EQ(to_ids(""), "");
  EXPECT_EQ(to_ids("\n"), "0 2\n");
  EXPECT_EQ(to_ids("ab\nb"), "0 261 2\n0 102 2\n");
  EXPECT_EQ(to_ids("ab\r\n"), "0 261 17 2\n");
}

TEST(TokenizerLines, SamplesMayEndInNul) {
  LineOptions options;
  options.end_of_text = '\0';
  EXPECT_EQ(
      to_ids(std::string_view("a\nb\0ab", 6), options),
      "0 101 14 102 2\n0 261 2\n");
  EXPECT_EQ(
      to_text("0 101 14 102 2\n261\n", options), std::string("a\nb\0ab\0", 7));
}

TEST(TokenizerLines, TextComesBack) {
  EXPECT_EQ(to_text("0 261 2\n\n0 2\n  261  260"), "ab\n\n\nab<mask>\n");
  LineOptions options;
  options.skip_special_tokens = true;
  EXPECT_EQ(to_text("0 261 260 2\n", options), "ab\n");
  // Only a pair is taken away.
  EXPECT_EQ(to_text("0 261\n261 2\n0\n"), "<s>ab\nab</s>\n<s>\n");
}

// Lines much longer than a block, and many blocks of lines.
TEST(TokenizerLines, BlocksDoNotShow) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text += std::string(static_cast<size_t>(i) * 7001, 'x') + "\n";
  }
  EXPECT_EQ(to_text(to_ids(text)), text);
}

TEST(TokenizerLines, WhatIsNoLineOfIdsIsRefused) {
  for (const char* line : {"0 a 2", "1.5", "12x", "99999999999", "262", "-1"}) {
    const Files files(line);
    try {
      detokenize_lines(*byte_tokenizer(true), {}, files.in, files.out);
      ADD_FAILURE() << line;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::data);
      EXPECT_THAT(error.what(), HasSubstr("token id"));
    }
  }
}

TEST(TokenizerLines, AReaderThatGoesAwayIsNoError) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  const Files files("ab\n");
  EXPECT_FALSE(tokenize_lines(byte_tokenizer(), {}, files.in, ends[1]));
  ::close(ends[1]);
  std::signal(SIGPIPE, before);
}

} // namespace
} // namespace deepspeed::text
