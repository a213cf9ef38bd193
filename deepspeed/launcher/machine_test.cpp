// Shares of cores, on made-up machines.
#include "deepspeed/launcher/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Two sockets with four cores of two threads each: core c and c + 8 are
// siblings.
Machine two_sockets() {
  Machine machine{.host = "m"};
  for (int core = 0; core < 16; ++core) {
    machine.cores.push_back(core);
  }
  machine.first_threads = {0, 1, 2, 3, 4, 5, 6, 7};
  machine.numa_nodes = {
      {0, {0, 1, 2, 3, 8, 9, 10, 11}}, {1, {4, 5, 6, 7, 12, 13, 14, 15}}};
  return machine;
}

TEST(ShareCores, ThreadsWithoutBinding) {
  for (const auto& [ranks, threads] :
       {std::pair(1, 16), std::pair(3, 5), std::pair(40, 1)}) {
    const auto shares = share_cores(two_sockets(), ranks, false, "");
    ASSERT_EQ(shares.size(), static_cast<size_t>(ranks));
    EXPECT_EQ(shares.back().threads, threads);
    EXPECT_THAT(shares.back().cores, IsEmpty());
  }
}

TEST(ShareCores, PhysicalCoresAndTheirMemory) {
  const auto shares = share_cores(two_sockets(), 2, true, "");
  EXPECT_THAT(shares[0].cores, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(shares[0].memory_node, 0);
  EXPECT_THAT(shares[1].cores, ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(shares[1].memory_node, 1);
  EXPECT_EQ(shares[1].threads, 4);
  // What does not divide stays idle, as in DeepSpeed.
  const auto thirds = share_cores(two_sockets(), 3, true, "");
  EXPECT_THAT(thirds[1].cores, ElementsAre(2, 3));
  EXPECT_THAT(thirds[2].cores, ElementsAre(4, 5));
  // Over two nodes: memory from both.
  EXPECT_EQ(share_cores(two_sockets(), 1, true, "")[0].memory_node, -1);
}

TEST(ShareCores, AList) {
  const auto shares = share_cores(two_sockets(), 2, true, "1,3-5,8");
  EXPECT_THAT(shares[0].cores, ElementsAre(1, 3));
  EXPECT_THAT(shares[1].cores, ElementsAre(4, 5));
}

TEST(ShareCores, Errors) {
  const auto code = [](int ranks, const std::string& list) {
    try {
      share_cores(two_sockets(), ranks, true, list);
    } catch (const base::Error& error) {
      return error.code();
    }
    return base::ExitCode::ok;
  };
  EXPECT_EQ(code(9, ""), base::ExitCode::config);
  EXPECT_EQ(code(2, "3"), base::ExitCode::config);
  EXPECT_EQ(code(1, "16"), base::ExitCode::config);
  EXPECT_EQ(code(1, "3,3"), base::ExitCode::usage);
  EXPECT_EQ(code(1, "1-4,3-6"), base::ExitCode::usage);
  EXPECT_EQ(code(1, "1;rm"), base::ExitCode::usage);
}

TEST(ThisMachine, HasCores) {
  const Machine machine = this_machine();
  EXPECT_FALSE(machine.host.empty());
  EXPECT_GE(machine.cores.size(), 1U);
  EXPECT_GE(machine.first_threads.size(), 1U);
  EXPECT_LE(machine.first_threads.size(), machine.cores.size());
  EXPECT_GE(machine.numa_nodes.size(), 1U);
}

} // namespace
} // namespace deepspeed::launcher
