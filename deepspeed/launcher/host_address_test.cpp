// Which address of the first host the others are told.
#include "deepspeed/launcher/host_address.h"

#include <gtest/gtest.h>

namespace deepspeed::launcher {
namespace {

TEST(HostAddress, TheAddressByWhichSshCame) {
  const HostAddress address =
      this_host_address("192.168.77.9 50122 192.168.77.1 22");
  EXPECT_EQ(address.own, "192.168.77.1");
  EXPECT_EQ(address.launcher, "192.168.77.9");
  const HostAddress back = parse_host_address(to_text(address));
  EXPECT_EQ(back.own, address.own);
  EXPECT_EQ(back.launcher, address.launcher);
}

TEST(HostAddress, WithoutOneItIsThatOfAnInterface) {
  EXPECT_NE(this_host_address("").own, "");
  EXPECT_EQ(this_host_address("").launcher, "");
  EXPECT_NE(this_host_address("127.0.0.1 50122 127.0.1.1 22").own, "127.0.1.1");
  EXPECT_EQ(parse_host_address("10.0.0.1 ").own, "10.0.0.1");
}

// A management network is the first interface; the hostfile names another one.
TEST(HostAddress, TheLauncherOnTheFirstHostIsSeenByTheOthers) {
  const HostAddress second{"192.168.77.2", "192.168.77.1"};
  EXPECT_EQ(
      master_address({{"169.254.3.1", "127.0.0.1"}, second}), "192.168.77.1");
  EXPECT_EQ(
      master_address({{"192.168.77.1", "192.168.77.1"}, second}),
      "192.168.77.1");
  EXPECT_EQ(
      master_address({{"192.168.77.3", "192.168.77.9"}, second}),
      "192.168.77.3");
  EXPECT_EQ(master_address({{"10.0.0.1", ""}, {"10.0.0.2", ""}}), "10.0.0.1");
  EXPECT_EQ(
      master_address({{"10.0.0.1", "127.0.0.1"}, {"10.0.0.1", "127.0.0.1"}}),
      "10.0.0.1");
}

} // namespace
} // namespace deepspeed::launcher
