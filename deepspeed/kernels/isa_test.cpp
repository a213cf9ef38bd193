// The choice of instruction sets.
#include "deepspeed/kernels/isa.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "deepspeed/base/error.h"

namespace deepspeed::kernels {
namespace {

TEST(Isa, EveryAvailableOneCanBeForced) {
  const std::vector<std::string> isas = available_isas();
  ASSERT_FALSE(isas.empty());
  for (const std::string& isa : isas) {
    force_isa(isa);
    EXPECT_EQ(active_isa(), isa);
  }
  force_isa(isas.front());
}

TEST(Isa, TheFallbackIsThere) {
#if defined(__x86_64__)
  EXPECT_EQ(available_isas().back(), "scalar");
#endif
}

TEST(Isa, AnUnknownOneIsAnError) {
  const std::string before = active_isa();
  EXPECT_THROW(force_isa("mmx"), base::Error);
  EXPECT_EQ(active_isa(), before);
}

TEST(IsaDeathTest, TheEnvironmentDecides) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const std::string last = available_isas().back();
  // The statement runs in a process that starts anew with this environment.
  setenv("DS_CPU_ISA", last.c_str(), 1);
  EXPECT_EXIT(
      std::exit(active_isa() == last ? 0 : 1), testing::ExitedWithCode(0), "");
  setenv("DS_CPU_ISA", "mmx", 1);
  EXPECT_EXIT(
      {
        try {
          active_isa();
        } catch (const base::Error&) {
          std::exit(64);
        }
      },
      testing::ExitedWithCode(64),
      "");
  unsetenv("DS_CPU_ISA");
}

} // namespace
} // namespace deepspeed::kernels
