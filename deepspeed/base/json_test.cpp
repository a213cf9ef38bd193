// JSON is read strictly: what would be guessed elsewhere is an error here.
#include "deepspeed/base/json.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::base {
namespace {

std::string report_of(const std::string& text) {
  try {
    parse_json(text, "x.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    return error.report();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(
      parse_json(R"({"b": 1, "a": [2.5]})", "").dump(), R"({"b":1,"a":[2.5]})");
}

TEST(Json, AllowsComments) {
  EXPECT_EQ(parse_json("{ // one\n \"a\": /* two */ 1 }", "")["a"], 1);
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_NE(
      report_of(R"({"a": 1, "b": {"c": 1, "c": 2}})").find("duplicate key"),
      std::string::npos);
  EXPECT_EQ(report_of(R"({"a": 1, "b": {"a": 1}})"), "");
}

TEST(Json, NamesThePlaceOfASyntaxError) {
  EXPECT_NE(report_of("{\n  \"a\": }").find("x.json:2:"), std::string::npos);
  EXPECT_NE(report_of(""), "");
  EXPECT_NE(report_of("{} x"), "");
  EXPECT_NE(report_of("\"\xff\""), "");
}

TEST(Json, RefusesWhatFollowsANulByte) {
  using namespace std::string_literals;
  EXPECT_NE(report_of("7\0{\"a\": 1}"s).find("NUL byte"), std::string::npos);
  EXPECT_NE(report_of("{}\n\0"s).find("x.json:2:1"), std::string::npos);
}

TEST(Json, RefusesNumbersBeyondADouble) {
  EXPECT_EQ(
      report_of("[\n1e400]"),
      "error: not valid JSON: number overflow parsing '1e400'\n"
      "  x.json:2:5\n");
}

TEST(Json, AllowsTrailingCommasOnRequest) {
  JsonOptions options;
  options.trailing_commas = true;
  auto dump = [&](const std::string& text) {
    return parse_json(text, "", options).dump();
  };
  EXPECT_EQ(
      dump("{\"a\": [1, 2 , // two\n ], /* } */ \"b\": \",]\\\"\", }"),
      "{\"a\":[1,2],\"b\":\",]\\\"\"}");
  EXPECT_EQ(dump("[[1,],\"x\",]"), "[[1],\"x\"]");
  for (const std::string text :
       {"[,]", "{,}", "[1,,]", "[1],", ",", "{\"a\",}", "[1 /* ,]", "[\",]"}) {
    EXPECT_THROW(parse_json(text, "", options), Error) << text;
  }
  EXPECT_NE(report_of("[1,]"), ""); // not without the request
}

TEST(Json, RefusesDeepNesting) {
  EXPECT_NE(
      report_of(std::string(100000, '[')).find("nested"), std::string::npos);
}

} // namespace
} // namespace deepspeed::base
