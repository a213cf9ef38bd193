// The content of a file and its name agree on what it is, or it is refused.
#include "deepspeed/text/text_format.h"

#include <gtest/gtest.h>

#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/text/test_files.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using namespace std::string_literals;

FileFormat detect(const std::string& bytes, const std::string& name) {
  return detect_format([&] { return open_memory(bytes); }, name);
}

// "" or what the file is refused for, and the hint.
std::string refusal(const std::string& bytes, const std::string& name) {
  try {
    detect(bytes, name);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    EXPECT_EQ(error.where(), name);
    return error.what() + ": "s + error.hint();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(TextFormat, FollowsTheName) {
  const std::string object = "{\"text\": \"a\"}\n";
  for (const char* name :
       {"a.json", "a.jsonl", "a.ndjson", "a.JSONL", "a.json.gz", "a.Json.XZ"}) {
    const std::string bytes =
        compression_of(name) == Compression::none ? object : gzip(object);
    EXPECT_EQ(detect(bytes, name).text, TextFormat::json_lines) << name;
  }
  EXPECT_EQ(detect(" [", "a.json").text, TextFormat::json_array);
  EXPECT_EQ(detect("a", "a.csv").text, TextFormat::csv);
  EXPECT_EQ(detect("a", "a.TSV").text, TextFormat::tsv);
  EXPECT_EQ(detect("a", "a.md").text, TextFormat::lines);
  EXPECT_EQ(detect("[1] a note\n{x}\n", "a.txt").text, TextFormat::lines);
}

TEST(TextFormat, RefusesJsonUnderAnotherName) {
  const std::string line = "{\"a\": NaN, \"text\": \"b\"}\n";
  EXPECT_TRUE(has(refusal(line, "a.txt"), ".jsonl"));
  EXPECT_TRUE(has(refusal(line, "a.csv"), "jq -Rc"));
  EXPECT_TRUE(has(refusal("\xEF\xBB\xBF\n" + line + line, "wiki"), ".jsonl"));
  EXPECT_TRUE(has(refusal(gzip(line), "a.txt"), ".jsonl"));
  const std::string long_line =
      "{\"text\": \"" + std::string(200000, 'x') + "\"}";
  EXPECT_TRUE(has(refusal(long_line + "\n", "a.txt"), ".jsonl"));
  for (const std::string start : {"[", " [\n  ", "\xEF\xBB\xBF["}) {
    const std::string array = start + "{\n \"a\": [\"}\\\"\"]}, {}]\n";
    EXPECT_TRUE(has(refusal(array, "a.txt"), "end in .json,")) << array;
    EXPECT_EQ(refusal(array, "a.json"), "");
  }
  EXPECT_TRUE(has(refusal("[" + long_line + "]", "a.txt"), "end in .json,"));
  EXPECT_EQ(refusal("[{see below}] a text\n\"quoted\"\n", "a.txt"), "");
  EXPECT_EQ(refusal("[{}]\n[\"a\"]\n", "a.txt"), "");
  EXPECT_EQ(refusal(line + "a text about it\n", "a.txt"), "");
  EXPECT_EQ(refusal("{}\n{}\n", "a.txt"), "");
  EXPECT_EQ(refusal("{a}\n", "a.txt"), "");
}

TEST(TextFormat, RefusesWhatIsNoUtf8WithACommand) {
  EXPECT_TRUE(
      has(refusal(
              "\xFF\xFE"
              "a\0b\0"s,
              "a.txt"),
          "iconv -f UTF-16"));
  EXPECT_TRUE(has(refusal("\xFE\xFF\0a"s, "a.txt"), "iconv -f UTF-16"));
  EXPECT_TRUE(has(refusal("\xFF\xFE\0\0a\0\0\0"s, "a"), "iconv -f UTF-32"));
  std::string without_mark;
  for (int i = 0; i < 50; ++i) {
    without_mark += "x\0"s;
  }
  EXPECT_TRUE(has(refusal(without_mark, "a.txt"), "iconv"));
  EXPECT_TRUE(has(refusal("PK\x03\x04...", "a.txt"), "unzip -p"));
  EXPECT_TRUE(has(refusal("7z\xBC\xAF\x27\x1C", "a.txt"), "7z x"));
  EXPECT_TRUE(has(refusal("PAR1....", "a.parquet"), "read_parquet"));
  EXPECT_TRUE(has(refusal("ARROW1\0\0"s, "a.arrow"), "from_file"));
  EXPECT_TRUE(has(refusal("\xFF\xFF\xFF\xFF\x10", "a.arrow"), "from_file"));
  std::string tar(257, 'a');
  tar += "ustar";
  EXPECT_TRUE(has(refusal(gzip(tar), "a.tar.gz"), "tar -x"));
  EXPECT_TRUE(has(refusal(gzip(gzip("a")), "a.txt"), "compressed twice"));
  std::string binary;
  for (int i = 0; i < 1000; ++i) {
    binary += static_cast<char>((i * i * 31 + i) % 256);
  }
  EXPECT_TRUE(has(refusal(binary, "a.txt"), "binary"));
  // Latin-1 and single strange bytes are read, as before.
  std::string latin;
  for (int i = 0; i < 50; ++i) {
    latin +=
        "d\xE9j\xE0 vu en fran\xE7"
        "ais\n";
  }
  EXPECT_EQ(refusal(latin + "\0\x01"s, "a.txt"), "");
}

TEST(TextFormat, RefusesANameThatPromisesCompression) {
  EXPECT_TRUE(has(refusal("", "a.txt.gz"), "truncated"));
  EXPECT_TRUE(has(refusal("text", "a.txt.xz"), "rename"));
  const std::string cut = gzip("some text").substr(0, 12);
  EXPECT_TRUE(has(refusal(cut, "a.txt"), "truncated"));
}

} // namespace
} // namespace deepspeed::text
