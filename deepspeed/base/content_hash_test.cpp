// Known values of XXH3-128, and pieces against the whole.
#include "deepspeed/base/content_hash.h"

#include <gtest/gtest.h>

#include <string_view>

namespace deepspeed::base {
namespace {

void add(ContentHash& hash, std::string_view text) {
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
}

// xxhsum -H2 of an empty file, and of "abc".
TEST(ContentHash, HasTheValuesOfXxhsum) {
  ContentHash hash;
  EXPECT_EQ(hash.hex(), "99aa06d3014798d86001c324468d497f");
  add(hash, "abc");
  EXPECT_EQ(hash.hex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(ContentHash, DoesNotDependOnThePieces) {
  const std::string text(100'000, 'x');
  ContentHash whole;
  add(whole, text);
  ContentHash pieces;
  for (size_t at = 0; at < text.size(); at += 777) {
    add(pieces, std::string_view(text).substr(at, 777));
  }
  EXPECT_EQ(pieces.hex(), whole.hex());
  add(pieces, "x");
  EXPECT_NE(pieces.hex(), whole.hex());
}

} // namespace
} // namespace deepspeed::base
