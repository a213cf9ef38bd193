// What the user sees when something is wrong.
#include "deepspeed/base/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace deepspeed::base {
namespace {

TEST(Error, ReportsWhatWhereAndHint) {
  const Error error(ExitCode::data, "bad magic", "a.pt:0", "save it again");
  EXPECT_EQ(
      error.report(), "error: bad magic\n  a.pt:0\n  hint: save it again\n");
}

TEST(Error, LeavesOutEmptyLines) {
  EXPECT_EQ(Error(ExitCode::usage, "no", "", "").report(), "error: no\n");
}

TEST(Error, FullDiskHasAHint) {
  const Error error =
      system_error(ExitCode::io, "cannot write", "out/x.pt", ENOSPC);
  EXPECT_NE(error.report().find("out/x.pt"), std::string::npos);
  EXPECT_NE(error.hint().find("space"), std::string::npos);
}

TEST(RunProgram, TurnsErrorsIntoExitCodes) {
  EXPECT_EQ(run_program([] { return 0; }), 0);
  EXPECT_EQ(
      run_program([]() -> int { throw Error(ExitCode::config, "x", "", ""); }),
      78);
  EXPECT_EQ(run_program([]() -> int { throw std::logic_error("broken"); }), 70);
}

TEST(NearestName, FindsTypingErrorsOnly) {
  const std::vector<std::string> flags{"--batch_size", "--num_layers"};
  EXPECT_EQ(nearest_name("--batchsize", flags), "--batch_size");
  EXPECT_EQ(nearest_name("--num_layer", flags), "--num_layers");
  EXPECT_EQ(nearest_name("--zzz", flags), "");
}

} // namespace
} // namespace deepspeed::base
