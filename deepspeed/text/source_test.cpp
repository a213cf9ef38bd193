// What the samples of a file are, for each format.
#include "deepspeed/text/source.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/text/test_files.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using Samples = std::vector<std::string>;

Samples read(
    std::string_view bytes,
    const std::string& name,
    SourceCounts* counts = nullptr) {
  const FileFormat format =
      detect_format([&] { return open_memory(bytes); }, name);
  SampleReader reader(open_memory(bytes), format, name, "text");
  Samples samples;
  std::string_view text;
  while (reader.next(text)) {
    samples.emplace_back(text);
  }
  EXPECT_FALSE(reader.next(text)); // the end stays the end
  if (counts != nullptr) {
    *counts = reader.counts();
  }
  return samples;
}

TEST(SampleReader, GivesTheLinesOfAText) {
  EXPECT_EQ(
      read("one\n two \nthree\n", "a"), (Samples{"one", " two ", "three"}));
  EXPECT_EQ(read("one\ntwo", "a"), (Samples{"one", "two"}));
  // Any end of a line, as for Python's text mode.
  EXPECT_EQ(read("one\r\ntwo\r\r\n\r\n", "a"), (Samples{"one", "two"}));
  EXPECT_EQ(read("one\rtwo\rthree", "a"), (Samples{"one", "two", "three"}));
  EXPECT_EQ(read("one\ntwo\rthree\n", "a"), (Samples{"one", "two", "three"}));
  EXPECT_EQ(read("\n\n \t\none\n\n", "a"), (Samples{"one"}));
  EXPECT_EQ(
      read("\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo", "a"),
      (Samples{"one", "\xEF\xBB\xBFtwo"}));
  EXPECT_EQ(
      read(std::string_view("a\0b\n\0\n", 6), "a"),
      (Samples{std::string("a\0b", 3), std::string(1, '\0')}));
  EXPECT_EQ(read("a\xE2\x80\xA8z\n", "a"), (Samples{"a\xE2\x80\xA8z"}));
  EXPECT_EQ(read("", "a"), Samples());
  EXPECT_EQ(read("\xEF\xBB\xBF", "a"), Samples());
}

// Lines that end before, at and after the end of a buffer (256 KiB).
// A buffer without "\n" is not searched for it again for each line.
TEST(SampleReader, ReadsShortLinesThatEndInAReturnQuickly) {
  constexpr size_t kLines = 3'000'000;
  std::string text;
  for (size_t i = 0; i < kLines; ++i) {
    text += "a\r";
  }
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(read(text, "a").size(), kLines);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
}

TEST(SampleReader, LinesMaySpanBuffers) {
  for (int shift = -3; shift <= 3; ++shift) {
    const std::string first((size_t{1} << 18) + shift, 'x');
    const std::string second(size_t{600000} + shift, 'y');
    EXPECT_EQ(
        read(first + "\n" + second + "\r\nz\n", "a"),
        (Samples{first, second, "z"}));
    EXPECT_EQ(
        read(first + "\r\n\n" + second + "\rz\r", "a"),
        (Samples{first, second, "z"}));
  }
}

TEST(SampleReader, UnpacksWhateverTheNameIs) {
  EXPECT_EQ(read(gzip("one\n"), "a.txt"), (Samples{"one"}));
  EXPECT_EQ(read(xz("one\n") + xz("two"), "a"), (Samples{"one", "two"}));
  EXPECT_EQ(read(bzip2("one\n"), "a.txt.gz"), (Samples{"one"}));
  EXPECT_EQ(
      read(gzip("one\n") + gzip("two\n"), "a.txt.gz"), (Samples{"one", "two"}));
  EXPECT_EQ(read(zstd("one\ntwo\n"), "a.zst"), (Samples{"one", "two"}));
  EXPECT_EQ(
      read(gzip("{\"text\": \"one\"}\n"), "a.jsonl.gz"), (Samples{"one"}));
}

TEST(SampleReader, CutsALongLineBetweenCharacters) {
  SourceCounts counts;
  const std::string most(kMaxSampleBytes, 'x');
  EXPECT_EQ(read(most + "\r\nnext\n", "a", &counts), (Samples{most, "next"}));
  EXPECT_EQ(counts.cut, 0u);
  EXPECT_EQ(read(most + "y\nnext\n", "a", &counts), (Samples{most, "next"}));
  EXPECT_EQ(counts.cut, 1u);
  for (size_t inside : {1, 2, 3}) { // a character of 4 bytes on the border
    const std::string before(kMaxSampleBytes - inside, 'x');
    EXPECT_EQ(read(before + "😀\n", "a", &counts), (Samples{before}));
    EXPECT_EQ(counts.cut, 1u);
    EXPECT_EQ(counts.invalid_utf8, 0u);
  }
  const std::string tails(kMaxSampleBytes + 9, '\x80'); // no character at all
  SampleReader reader(open_memory(tails), {}, "a", "");
  std::string_view text;
  ASSERT_TRUE(reader.next(text));
  EXPECT_EQ(text, tails.substr(9));
}

TEST(SampleReader, CountsInvalidUtf8) {
  SourceCounts counts;
  EXPECT_EQ(read("a\xff\nb\n\xed\xa0\x80\n", "a", &counts).size(), 3u);
  EXPECT_EQ(counts.invalid_utf8, 2u);
  EXPECT_EQ(counts.samples, 3u);
}

// Of `total` bytes without a line break, made on the fly.
class EndlessLine : public ByteStream {
 public:
  explicit EndlessLine(uint64_t total) : left_(total) {}
  size_t read(std::span<char> buffer) override {
    const size_t n = std::min<uint64_t>(buffer.size(), left_);
    std::fill_n(buffer.begin(), n, 'x');
    left_ -= n;
    return n;
  }

 private:
  uint64_t left_;
};

TEST(SampleReader, TakesLittleMemoryForALineOfAGigabyte) {
  rusage before{};
  ::getrusage(RUSAGE_SELF, &before);
  SampleReader reader(
      std::make_unique<EndlessLine>(uint64_t{1} << 30), {}, "a.txt", "");
  std::string_view text;
  ASSERT_TRUE(reader.next(text));
  EXPECT_EQ(text.size(), kMaxSampleBytes);
  EXPECT_FALSE(reader.next(text));
  rusage after{};
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 20 * 1024); // KiB
}

void expect_error(
    const std::function<void()>& action,
    ExitCode code,
    const std::string& where) {
  try {
    action();
    ADD_FAILURE() << "no error for " << where;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(error.where(), where);
  }
}

TEST(SampleReader, NamesTheLineThatIsNoGoodJson) {
  std::string lines;
  for (int i = 1; i < 17; ++i) {
    lines += i == 5 ? "\r\n" : "{\"text\": \"a\"}\r\n";
  }
  EXPECT_EQ(read(lines, "a.jsonl").size(), 15u);
  const std::string deep = "{\"a\": " + std::string(100000, '[');
  for (const std::string& line :
       {std::string("{\"text\": "),
        std::string("{\"txt\": \"a\"}"),
        std::string("{\"text\": 1}"),
        deep}) {
    expect_error(
        [&] { read(lines + line, "b.jsonl"); }, ExitCode::data, "b.jsonl:17");
  }
}

TEST(SampleReader, RefusesAJsonLineThatIsTooLong) {
  for (const TextFormat format :
       {TextFormat::json_lines, TextFormat::json_array, TextFormat::csv}) {
    SampleReader reader(
        std::make_unique<EndlessLine>(uint64_t{1} << 25),
        {Compression::none, format},
        "a.jsonl",
        "text");
    std::string_view text;
    expect_error([&] { reader.next(text); }, ExitCode::data, "a.jsonl:1");
  }
}

TEST(SampleReader, CutsALongTextOfAJsonLine) {
  SourceCounts counts;
  const std::string text(kMaxSampleBytes + 5, 'x');
  const Samples samples = read(
      "{\"text\": \"" + text + "\"}\n{\"text\": \"\"}", "a.jsonl", &counts);
  EXPECT_EQ(samples, (Samples{text.substr(5)}));
  EXPECT_EQ(counts.cut, 1u);
}

TEST(SampleReader, ReadsAJsonArray) {
  EXPECT_EQ(
      read(
          "\xEF\xBB\xBF [ {\"text\": \"a]},\\\"[\", \"b\": [{}]},\n"
          " {\"text\": \"b\", \"x\": NaN} ] \n",
          "a.json"),
      (Samples{"a]},\"[", "b"}));
  EXPECT_EQ(read("[]", "a.json"), Samples());
  EXPECT_EQ(read("{\"text\": \"a\"}\n", "a.json"), (Samples{"a"}));
  for (const char* bad :
       {"[{\"text\": \"a\"}\n",
        "[{\"text\": \"a\"},",
        "[",
        "[{\"text\": \"a"}) {
    expect_error([&] { read(bad, "a.json"); }, ExitCode::data, "a.json:1");
  }
  for (const char* bad :
       {"[{\"text\": \"a\"},\n]", "[{\"text\": \"a\"},\n1]", "[]\n[]"}) {
    expect_error([&] { read(bad, "a.json"); }, ExitCode::data, "a.json:2");
  }
  expect_error( // an object of several lines
      [&] { read("{\n\"text\": \"a\"}\n", "a.json"); },
      ExitCode::data,
      "a.json:1");
}

// Empty fields cost the file one byte each.
TEST(SampleReader, RefusesARecordOfVeryManyFields) {
  const std::string many(100'000, ',');
  expect_error(
      [&] { read(many + "text\n" + many + "a\n", "a.csv"); },
      ExitCode::data,
      "a.csv:1");
  const std::string some(1'000, ',');
  EXPECT_EQ(read(some + "text\n" + some + "a\n", "a.csv"), (Samples{"a"}));
}

TEST(SampleReader, ReadsCsv) {
  EXPECT_EQ(
      read(
          "\xEF\xBB\xBFid,\"text\"\r\n1,one\r\n\r\n"
          "2,\"two, \"\"2\"\"\n lines\"\n3,\n4,5\" disk",
          "a.CSV"),
      (Samples{"one", "two, \"2\"\n lines", "5\" disk"}));
  EXPECT_EQ(read("text\ta\n1\t2\n", "a.tsv.gz.tsv"), (Samples{"1"}));
  EXPECT_EQ(read(gzip("a,text\r1,2\r"), "a.csv.gz"), (Samples{"2"}));
  EXPECT_EQ(read("text\n", "a.csv"), Samples());
  for (const char* bad : {"id;text\n1;2\n", "a,b\n", "text,text\n1,2\n"}) {
    expect_error([&] { read(bad, "a.csv"); }, ExitCode::data, "a.csv:1");
  }
  for (const char* bad :
       {"text\n\"a\"b\n", "text,a\nx\n", "text\nx,y\n", "text\n\"a\n\n"}) {
    expect_error([&] { read(bad, "a.csv"); }, ExitCode::data, "a.csv:2");
  }
}

} // namespace
} // namespace deepspeed::text
