// Words for a shell.
#include "deepspeed/base/shell_word.h"

#include <gtest/gtest.h>

namespace deepspeed::base {
namespace {

TEST(ShellWord, QuotesWhatAShellWouldChange) {
  EXPECT_EQ(shell_word("/usr/bin/deepspeed-1.0"), "/usr/bin/deepspeed-1.0");
  EXPECT_EQ(shell_word("a b"), "'a b'");
  EXPECT_EQ(shell_word("a'b $(id)"), "'a'\\''b $(id)'");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("~"), "'~'");
}

} // namespace
} // namespace deepspeed::base
