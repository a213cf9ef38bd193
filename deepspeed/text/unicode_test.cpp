// UTF-8, the character classes, and the words that text is split into.
#include "deepspeed/text/unicode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "deepspeed/text/pretokenize.h"

namespace deepspeed::text {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t size = first_pretoken(text);
    words.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return words;
}

TEST(Unicode, DecodesWhatItEncodes) {
  for (const char32_t point :
       {0x0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text;
    append_utf8(point, text);
    EXPECT_TRUE(is_valid_utf8(text));
    EXPECT_EQ(decode_utf8(text.data()).point, point);
    EXPECT_EQ(decode_utf8(text.data()).size, text.size());
  }
}

TEST(Unicode, ClassesAreThoseOfTheExpression) {
  EXPECT_EQ(class_of(U'é'), CharClass::letter);
  EXPECT_EQ(class_of(U'²'), CharClass::number);
  EXPECT_EQ(class_of(0x2028), CharClass::space);
  EXPECT_EQ(class_of(0x85), CharClass::space);
  EXPECT_EQ(class_of(0x0301), CharClass::other); // a combining accent
  EXPECT_EQ(class_of(0x200B), CharClass::other); // zero width space
  EXPECT_EQ(class_of(0x1F600), CharClass::other);
  EXPECT_EQ(class_of(0x110000), CharClass::other);
}

// The examples of table 3-8 of the Unicode Standard, section 3.9, and more.
TEST(Unicode, EachMaximalSubpartBecomesOneReplacement) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(
      replace_invalid_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                           "b\x80"
                           "c\x80\xBF"
                           "d"),
      "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), r + r); // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE0\x80\xAF"), r + r + r); // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r); // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), r); // cut off
  EXPECT_EQ(replace_invalid_utf8("12345678\xFF"), "12345678" + r);
  EXPECT_EQ(replace_invalid_utf8("né\xF0\x9F\x98\x80"), "né\xF0\x9F\x98\x80");
}

TEST(Pretokenize, SplitsAsTheExpressionOfGpt2) {
  EXPECT_THAT(
      words_of("Hello world, it's 3.14!"),
      ElementsAre("Hello", " world", ",", " it", "'s", " 3", ".", "14", "!"));
  // Contractions only where a word starts, and only in small letters.
  EXPECT_THAT(
      words_of("'southern !'s I'LL 'll"),
      ElementsAre("'s", "outhern", " !'", "s", " I", "'", "LL", " '", "ll"));
  EXPECT_THAT(
      words_of("'re've'm'd't'"),
      ElementsAre("'re", "'ve", "'m", "'d", "'t", "'"));
}

TEST(Pretokenize, SpaceLeavesItsLastCharacterToTheNextWord) {
  EXPECT_THAT(words_of("a  b"), ElementsAre("a", " ", " b"));
  EXPECT_THAT(words_of("a \t b"), ElementsAre("a", " \t", " b"));
  EXPECT_THAT(words_of("a \tb"), ElementsAre("a", " ", "\t", "b"));
  EXPECT_THAT(words_of("a\tb"), ElementsAre("a", "\t", "b"));
  EXPECT_THAT(words_of("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(words_of(" "), ElementsAre(" "));
  EXPECT_THAT(
      words_of("a \u3000\u3000b"), ElementsAre("a", " \u3000", "\u3000", "b"));
}

TEST(Pretokenize, RunsCrossFromAsciiToOtherCharacters) {
  EXPECT_THAT(words_of("naïve4²—…!"), ElementsAre("naïve", "4²", "—…!"));
  EXPECT_THAT(words_of(" e\u0301a"), ElementsAre(" e", "\u0301", "a"));
}

} // namespace
} // namespace deepspeed::text
