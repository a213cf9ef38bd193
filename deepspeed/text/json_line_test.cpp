// The text of a JSON line, or exactly what is wrong with it.
#include "deepspeed/text/json_line.h"

#include <gtest/gtest.h>

namespace deepspeed::text {
namespace {

// The text, or "error: " and the problem.
std::string read(std::string_view line) {
  std::string text;
  const std::string problem = read_json_line(line, "text", text);
  return problem.empty() ? text : "error: " + problem;
}

TEST(JsonLine, FindsTheField) {
  EXPECT_EQ(read(R"({"text": "a b"})"), "a b");
  EXPECT_EQ(
      read(R"({"id": 1, "text": "\u00e4\ud83d\ude00\n", "x": [{}]})"), "ä😀\n");
  EXPECT_EQ(read(R"({"text": ""})"), "");
  // Only the field of the object itself.
  EXPECT_EQ(
      read(R"({"a": {"text": "no"}, "text": "yes", "b": ["text"]})"), "yes");
  EXPECT_EQ(
      read(std::string_view("{\"text\": \"a\\u0000b\"}")),
      std::string("a\0b", 3));
}

TEST(JsonLine, SaysWhatIsWrong) {
  EXPECT_EQ(read(R"({"txt": "a"})"), "error: no field \"text\"");
  EXPECT_EQ(read("{}"), "error: no field \"text\"");
  EXPECT_EQ(read(R"({"a": {"text": "no"}})"), "error: no field \"text\"");
  for (const char* value : {"1", "-1", "1.5", "null", "true", "{}", "[]"}) {
    const std::string line = std::string("{\"text\": ") + value + "}";
    EXPECT_TRUE(read(line).ends_with(", not a string")) << read(line);
  }
  EXPECT_EQ(
      read(R"({"text": "a", "text": "b"})"),
      "error: the field \"text\" is there twice");
  for (const char* line : {"[\"text\"]", "\"text\"", "3", "null"}) {
    EXPECT_TRUE(read(line).starts_with("error: expected an object")) << line;
  }
}

TEST(JsonLine, RefusesWhatIsNotJson) {
  for (const char* line :
       {"",
        "{",
        "text",
        R"({"text": "a")",
        R"({"text": "a"} x)",
        R"({'text': 'a'})",
        R"({"text": "a",})",
        "{\"text\": \"\xff\"}",
        R"({"text": "\ud800"})",
        R"({"text": "a"} // x)"}) {
    EXPECT_TRUE(read(line).starts_with("error: not valid JSON")) << line;
  }
  EXPECT_TRUE(read(std::string_view("{\"text\": \"a\"}\0x", 15))
                  .starts_with("error: not valid JSON"));
}

TEST(JsonLine, RefusesDeepNesting) {
  const std::string deep(100000, '[');
  EXPECT_EQ(
      read("{\"text\": \"a\", \"b\": " + deep),
      "error: nested deeper than 64 levels");
}

TEST(JsonLine, TakesManyKeysInLinearTime) {
  std::string line = "{";
  for (int i = 0; i < 500000; ++i) {
    line += "\"k" + std::to_string(i) + "\":0,";
  }
  EXPECT_EQ(read(line + "\"text\": \"a\"}"), "a");
}

} // namespace
} // namespace deepspeed::text
