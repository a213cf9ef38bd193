// Ranks that cannot join, or do not belong together.
#include <gmock/gmock.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "deepspeed/comm/rendezvous.h"
#include "deepspeed/comm/test_ranks.h"

namespace deepspeed::comm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string join_error(
    const RankInfo& info,
    milliseconds timeout = std::chrono::seconds(20)) {
  return error_of([&] { make_process_group(info, options_of("", timeout)); });
}

TEST(Rendezvous, MissingRanksAreListed) {
  Ranks ranks(4, [](const RankInfo& info) {
    if (info.rank == 2) {
      return;
    }
    EXPECT_THAT(
        join_error(info, milliseconds(1500)),
        AllOf(
            StartsWith("69 not all ranks joined in 1.5 s"),
            HasSubstr("missing 2; joined 0, 1, 3")));
  });
  ranks.expect_success();
}

TEST(Rendezvous, WithoutRankZero) {
  Ranks ranks(1, [](RankInfo info) {
    ::unsetenv("DS_MASTER_LISTEN_FD");
    info.master_port = Listener().port();
    info.rank = info.local_rank = 1;
    info.world_size = info.local_world_size = 2;
    const Clock::time_point start = Clock::now();
    EXPECT_THAT(
        join_error(info, milliseconds(1000)),
        AllOf(
            StartsWith("69 rank 1 cannot reach rank 0 at 127.0.0.1:"),
            HasSubstr(std::to_string(info.master_port) + " in 1 s")));
    EXPECT_LT(Clock::now() - start, milliseconds(2500));
  });
  ranks.expect_success();
}

// It takes connections, as the kernel does that, and says nothing.
TEST(Rendezvous, RankZeroIsStopped) {
  Ranks ranks(2, [](RankInfo info) {
    info.world_size = info.local_world_size = 3;
    if (info.rank == 0) {
      ::listen(std::atoi(std::getenv("DS_MASTER_LISTEN_FD")), 8);
      ::raise(SIGSTOP);
    }
    const Clock::time_point start = Clock::now();
    EXPECT_THAT(
        join_error(info, milliseconds(1000)),
        StartsWith("69 not all ranks joined in 1 s: missing 0; joined 1; not "
                   "known 2"));
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(6));
  });
  EXPECT_EQ(ranks.wait(1), 0);
}

// One that joined is stopped: the others wait no longer for it.
TEST(Rendezvous, RankZeroIsStoppedWhileTheOthersWait) {
  Ranks ranks(2, [](RankInfo info) {
    info.world_size = info.local_world_size = 3;
    if (info.rank == 0) {
      std::thread([] {
        std::this_thread::sleep_for(milliseconds(700));
        ::raise(SIGSTOP);
      }).detach();
    }
    EXPECT_THAT(
        join_error(info, milliseconds(1500)), HasSubstr("missing 0; joined 1"));
  });
  EXPECT_EQ(ranks.wait(1), 0);
}

// As torchrun: its store outlives the ranks, which it starts again.
TEST(Rendezvous, ARestartWithTheStoreOfTheLauncher) {
  Ranks ranks(3, [](RankInfo info) {
    if (info.rank == 0) {
      c10d::TCPStoreOptions options;
      options.isServer = true;
      options.port = static_cast<uint16_t>(info.master_port);
      options.waitWorkers = false;
      options.masterListenFd = std::atoi(std::getenv("DS_MASTER_LISTEN_FD"));
      const auto store =
          c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
      ::pause();
    }
    info.rank = info.local_rank = info.rank - 1;
    info.world_size = info.local_world_size = 2;
    info.has_launcher_store = true;
    for (const char* start : {"run", "run restart 1", "run restart 2"}) {
      info.job_id = start;
      make_process_group(info, options_of(""))->barrier();
    }
    EXPECT_THAT(join_error(info), StartsWith("78 two processes say"));
  });
  EXPECT_EQ(ranks.wait(1), 0);
  EXPECT_EQ(ranks.wait(2), 0);
}

TEST(Rendezvous, ARankOfAnotherRunIsRefused) {
  Ranks ranks(3, [](RankInfo info) {
    const bool is_stray = info.rank == 2;
    info.world_size = info.local_world_size = 2;
    if (is_stray) {
      info.rank = info.local_rank = 1;
      info.job_id = "other";
      EXPECT_THAT(
          join_error(info),
          AllOf(
              StartsWith("78 rank 1 belongs to run 'other with 2 ranks'"),
              HasSubstr("is run 'test with 2 ranks'")));
      return;
    }
    if (info.rank == 1) {
      std::this_thread::sleep_for(milliseconds(700)); // the stray comes first
    }
    const auto group = make_process_group(info, options_of(""));
    group->require_equal("run", "one");
  });
  ranks.expect_success();
}

TEST(Rendezvous, TwoProcessesOfOneRank) {
  Ranks ranks(3, [](RankInfo info) {
    info.world_size = info.local_world_size = 3;
    if (info.rank == 2) {
      std::this_thread::sleep_for(milliseconds(500));
      info.rank = info.local_rank = 1;
      EXPECT_THAT(
          join_error(info),
          StartsWith("78 two processes say that they are rank 1"));
      return;
    }
    EXPECT_THAT(join_error(info, milliseconds(1500)), HasSubstr("missing 2"));
    std::this_thread::sleep_for(milliseconds(500));
  });
  ranks.expect_success();
}

TEST(Rendezvous, ConnectionsOfStrangersAreIgnored) {
  Ranks ranks(2, [](const RankInfo& info) {
    if (info.rank == 1) {
      for (const std::string& garbage :
           {std::string("GET / HTTP/1.1\r\n\r\n"),
            std::string(100'000, '\xff'),
            std::string(64, '\0'),
            std::string()}) {
        const int number = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address = {};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<uint16_t>(info.master_port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(
            ::connect(
                number, reinterpret_cast<sockaddr*>(&address), sizeof address),
            0);
        ::send(number, garbage.data(), garbage.size(), MSG_NOSIGNAL);
        ::close(number);
      }
    }
    make_process_group(info, options_of(""))->barrier();
  });
  ranks.expect_success();
}

TEST(Rendezvous, ThePortIsClosedOnceAllHaveJoined) {
  for (const char* transport : {"shm", "gloo"}) {
    Ranks ranks(2, [&](const RankInfo& info) {
      const auto group = make_process_group(info, options_of(transport));
      group->barrier();
      if (info.rank == 0) {
        const Endpoint store{kLoopback, info.master_port};
        const auto attempts =
            connect_all({&store, 1}, 1, Clock::now() + std::chrono::seconds(5));
        EXPECT_EQ(attempts[0].failure, "Connection refused") << transport;
      }
      group->barrier();
    });
    // The parent's copy of the listening socket must not answer.
    ranks.close_listener();
    ranks.expect_success();
  }
}

TEST(Rendezvous, APortInUseIsNamed) {
  const Listener taken;
  Ranks ranks(1, [&](RankInfo info) {
    ::unsetenv("DS_MASTER_LISTEN_FD");
    info.world_size = info.local_world_size = 2;
    info.master_port = taken.port();
    EXPECT_THAT(
        join_error(info),
        AllOf(
            StartsWith("69 cannot listen at port "),
            HasSubstr(std::to_string(taken.port())),
            HasSubstr("in use")));
  });
  ranks.expect_success();
}

TEST(Rendezvous, ListensItselfWithoutAnInheritedSocket) {
  const int port = Listener().port();
  Ranks ranks(2, [&](RankInfo info) {
    ::unsetenv("DS_MASTER_LISTEN_FD");
    info.master_port = port;
    make_process_group(info, options_of(""))->barrier();
  });
  ranks.expect_success();
}

// Each rank claims to be alone on its host, so rank 0 listens on all addresses
// and the others come by a name; the transports still find out the truth.
TEST(Rendezvous, SeveralHosts) {
  const int port = Listener().port();
  for (const std::string transport : {"", "gloo"}) {
    Ranks ranks(2, [&](RankInfo info) {
      ::unsetenv("DS_MASTER_LISTEN_FD");
      info.master_port = port;
      info.master_addr = "localhost";
      info.local_rank = 0;
      info.local_world_size = 1;
      const auto group = make_process_group(info, options_of(transport));
      EXPECT_EQ(group->name(), transport.empty() ? "shared memory" : "gloo");
      EXPECT_EQ(group->all_gather_text("x").size(), 2u);
    });
    ranks.expect_success();
  }
}

TEST(Rendezvous, AWrongInheritedSocketIsNamed) {
  for (const char* number : {"0", "999", "x"}) {
    Ranks ranks(1, [&](RankInfo info) {
      ::setenv("DS_MASTER_LISTEN_FD", number, 1);
      info.world_size = info.local_world_size = 2;
      EXPECT_THAT(
          join_error(info),
          StartsWith(
              std::string("78 DS_MASTER_LISTEN_FD=") + number + " is not"));
    });
    ranks.expect_success();
  }
}

TEST(Rendezvous, SettingsOfTheEnvironment) {
  Ranks ranks(1, [](RankInfo info) {
    ::setenv("DS_COMM", "mpi", 1);
    EXPECT_THAT(
        error_of([&] { make_process_group(info); }),
        StartsWith("78 DS_COMM=mpi is not a transport"));
    ::unsetenv("DS_COMM");
    for (const char* minutes : {"0", "-1", "soon", "1x", "nan", "1e9"}) {
      ::setenv("DEEPSPEED_TIMEOUT", minutes, 1);
      EXPECT_THAT(
          error_of([&] { make_process_group(info); }),
          StartsWith(std::string("78 DEEPSPEED_TIMEOUT=") + minutes));
    }
    ::setenv("DEEPSPEED_TIMEOUT", "0.01", 1); // 0.6 s
    info.world_size = info.local_world_size = 2;
    EXPECT_THAT(
        error_of([&] { make_process_group(info); }), HasSubstr("missing 1"));
  });
  ranks.expect_success();
}

TEST(Rendezvous, RanksThatWantDifferentTransports) {
  Ranks ranks(2, [](const RankInfo& info) {
    const std::string error = error_of([&] {
      make_process_group(info, options_of(info.rank == 0 ? "shm" : "gloo"));
    });
    EXPECT_THAT(error, StartsWith("78 rank 0 runs version '"));
    std::this_thread::sleep_for(milliseconds(300));
  });
  ranks.expect_success();
}

} // namespace
} // namespace deepspeed::comm
