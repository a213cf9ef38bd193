// The text of a JSON line, or exactly what is wrong with it.
#include "deepspeed/text/json_line.h"

#include <gtest/gtest.h>

namespace deepspeed::text {
namespace {

// The text, or "error: " and the problem.
std::string read(std::string_view line) {
  std::string text;
  const JsonProblem problem = read_json_line(line, "text", text);
  return problem ? "error: " + problem.what : text;
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

TEST(JsonLine, TakesWhatPythonWritesWhereNobodyReadsIt) {
  EXPECT_EQ(
      read(R"({"a": NaN, "b": [Infinity, -Infinity], "text": "NaN 1e999"})"),
      "NaN 1e999");
  EXPECT_EQ(read("{\"a\":1e999,\"text\":\"x\"}"), "x");
  EXPECT_EQ(
      read("{\"a\": -1" + std::string(400, '0') + ", \"text\": \"x\"}"), "x");
  EXPECT_EQ(read(R"({"a": "\ud800x", "text": "\ud83d\ude00"})"), "😀");
  EXPECT_EQ(read("{\"a\": \"\xff\", \"text\": \"x\"}"), "x");
  EXPECT_EQ(read(R"({"a": "\\", "b": NaN, "text": "x\""})"), "x\"");
  EXPECT_EQ(
      read(R"({"text": NaN})"),
      "error: the field \"text\" is a number, not a string");
  for (const char* value :
       {"NaNs",
        "-NaN",
        "+1",
        "01e999",
        "1e",
        "1.",
        "nan",
        "NaN 1",
        "\\",
        "."}) {
    const std::string line =
        std::string("{\"text\": \"x\", \"a\": ") + value + "}";
    EXPECT_TRUE(read(line).starts_with("error: not valid JSON")) << line;
  }
}

TEST(JsonLine, HintsAtWhatFits) {
  std::string text;
  EXPECT_EQ(
      read_json_line(R"({"title": "a", "body": {"x": 1}})", "text", text).hint,
      "it has the fields title, body; --text_column names one");
  EXPECT_NE(
      read_json_line("{", "text", text).hint.find("jq -c ."),
      std::string::npos);
  EXPECT_TRUE(is_json_object(" {\"a\": NaN}"));
  EXPECT_FALSE(is_json_object("[{}]"));
  EXPECT_FALSE(is_json_object("{a}"));
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
