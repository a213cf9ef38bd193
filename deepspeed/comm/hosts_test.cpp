// Ranks on several hosts, as network namespaces with names of their own.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>

#include <fstream>

#include "deepspeed/comm/tcp_socket.h"
#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::comm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

int shell(const std::string& command) {
  return std::system(
      ("export PATH=$PATH:/usr/sbin:/sbin; " + command + " 2>/dev/null")
          .c_str());
}

int enter_namespaces() {
  return ::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS);
}

// Hosts h1 and h2, rank 0 and 1: two networks between them, 10.77.0.* in front.
class Hosts : public testing::Test {
 protected:
  static constexpr const char* kNetwork = "192.168.77.";

  void SetUp() override {
    EXPECT_EQ(::pipe(to_second_), 0);
    EXPECT_EQ(::pipe(to_first_), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      const bool works = enter_namespaces() == 0 &&
          shell("ip link add a0 type veth peer name a1") == 0;
      ::_exit(works ? 0 : 1);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (status != 0) {
      GTEST_SKIP() << "no network namespaces here (not root, or no ip)";
    }
  }
  void TearDown() override {
    for (const int number :
         {to_second_[0], to_second_[1], to_first_[0], to_first_[1]}) {
      ::close(number);
    }
  }

  // In the process of a rank; `names` becomes its /etc/hosts.
  void become_host(RankInfo& info, int port, const std::string& names) {
    ASSERT_EQ(enter_namespaces(), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    const std::string file =
        folder_.path() + "/hosts" + std::to_string(info.rank);
    std::ofstream(file) << "127.0.0.1 localhost\n" << names << "\n";
    ASSERT_EQ(
        ::mount(file.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr), 0);
    const std::string name = "h" + std::to_string(info.rank + 1);
    ::sethostname(name.c_str(), name.size());
    ASSERT_EQ(shell("ip link set lo up"), 0);
    pid_t pid = ::getpid();
    char done = 0;
    if (info.rank == 0) {
      ASSERT_EQ(::write(to_second_[1], &pid, sizeof pid), sizeof pid);
      ASSERT_EQ(::read(to_first_[0], &done, 1), 1);
    } else {
      ASSERT_EQ(::read(to_second_[0], &pid, sizeof pid), sizeof pid);
      for (const std::string net : {"a", "b"}) {
        ASSERT_EQ(
            shell(
                "ip link add " + net + "1 type veth peer name " + net +
                "0 netns " + std::to_string(pid)),
            0);
      }
    }
    const std::string side = std::to_string(info.rank);
    const std::string host = std::to_string(info.rank + 1);
    if (info.rank == 1) {
      ASSERT_EQ(::write(to_first_[1], &done, 1), 1);
    }
    ASSERT_EQ(
        shell(
            "ip addr add 10.77.0." + host + "/24 dev a" + side +
            " && ip link set a" + side + " up && ip addr add " + kNetwork +
            host + "/24 dev b" + side + " && ip link set b" + side + " up"),
        0);
    ::unsetenv("DS_MASTER_LISTEN_FD");
    info.master_addr = "h1";
    info.master_port = port;
    info.local_rank = 0;
    info.local_world_size = 1;
  }

  file::TemporaryFolder folder_;
  int to_first_[2] = {};
  int to_second_[2] = {};
};

// The first two networks differ: h2 knows h1 in the second one.
TEST_F(Hosts, RankZeroKnowsItsOwnNameAsLoopback) {
  Ranks ranks(2, [this](RankInfo info) {
    become_host(
        info, 29500, info.rank == 0 ? "127.0.1.1 h1" : "192.168.77.1 h1");
    testing::internal::CaptureStderr();
    const auto group = make_process_group(info, options_of("gloo"));
    EXPECT_EQ(group->all_gather_text("x").size(), 2u);
    EXPECT_THAT(
        testing::internal::GetCapturedStderr(),
        info.rank == 0 ? HasSubstr("192.168.77.1 (h1), 192.168.77.2 (h2)")
                       : HasSubstr(""));
  });
  ranks.expect_success();
}

TEST_F(Hosts, TheStoreListensAtTheAddressOfItsName) {
  Ranks ranks(2, [this](RankInfo info) {
    become_host(info, 29500, "192.168.77.1 h1");
    if (info.rank == 1) {
      const auto failure_at = [](const std::string& address) {
        const Endpoint endpoint{address, 29500};
        return connect_all(
                   {&endpoint, 1}, 1, Clock::now() + std::chrono::seconds(5))[0]
            .failure;
      };
      const auto end = Clock::now() + std::chrono::seconds(20);
      while (failure_at("192.168.77.1") != "" && Clock::now() < end) {
        std::this_thread::sleep_for(milliseconds(10));
      }
      EXPECT_EQ(failure_at("192.168.77.1"), "");
      EXPECT_EQ(failure_at("10.77.0.1"), "Connection refused");
    }
    make_process_group(info, options_of("gloo"))->barrier();
  });
  ranks.expect_success();
}

TEST_F(Hosts, AnAddressThatIsNotReachedIsNamedAtOnce) {
  Ranks ranks(2, [this](RankInfo info) {
    become_host(info, 29500, "192.168.77.1 h1");
    if (info.rank == 1) { // offers an address of the other network
      ::setenv("GLOO_SOCKET_IFNAME", "a1", 1);
    } else {
      shell("ip route del 10.77.0.0/24");
    }
    const Clock::time_point start = Clock::now();
    std::string error;
    std::string hint;
    try {
      make_process_group(info, options_of("gloo"));
    } catch (const base::Error& caught) {
      error = caught.what();
      hint = caught.hint();
    }
    EXPECT_THAT(
        error,
        AllOf(
            StartsWith("rank 0 (h1) cannot reach rank 1 (h2) at 10.77.0.2:"),
            HasSubstr("unreachable")));
    EXPECT_THAT(hint, HasSubstr("firewall"));
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(25));
  });
  ranks.expect_success();
}

TEST_F(Hosts, AnInterfaceThatIsNotThereIsToldByAllRanks) {
  Ranks ranks(2, [this](RankInfo info) {
    become_host(info, 29500, "192.168.77.1 h1");
    char done = 0;
    if (info.rank == 1) {
      ::setenv("GLOO_SOCKET_IFNAME", "eth7", 1);
    }
    EXPECT_THAT(
        error_of([&] { make_process_group(info, options_of("gloo")); }),
        StartsWith(
            std::string(info.rank == 0 ? "78 rank 1 (h2): " : "78 ") +
            "no address of the interface GLOO_SOCKET_IFNAME=eth7"));
    // A network goes with the host at its other end.
    EXPECT_EQ(
        info.rank == 0 ? ::write(to_second_[1], &done, 1)
                       : ::read(to_second_[0], &done, 1),
        1);
  });
  ranks.expect_success();
}

} // namespace
} // namespace deepspeed::comm
