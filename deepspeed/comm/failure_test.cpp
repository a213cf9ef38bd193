// Ranks that die, stop or lag behind: the others say so, in time, by name.
#include <ATen/ATen.h>

#include "deepspeed/comm/peer_process.h"
#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/comm/work.h"

namespace deepspeed::comm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void sum_once(ProcessGroup& group) {
  group.all_reduce(at::ones({100'000}), ReduceOp::sum)->wait();
}

class Failures : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(
    All,
    Failures,
    testing::Values("shm", "gloo"),
    [](const auto& info) { return info.param; });

TEST_P(Failures, AKilledRankIsNamedWithinThreeSeconds) {
  Ranks ranks(3, [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of(GetParam()));
    sum_once(*group);
    if (info.rank == 1) {
      ::raise(SIGKILL);
    }
    const Clock::time_point start = Clock::now();
    const std::string error = error_of([&] { sum_once(*group); });
    EXPECT_LT(seconds_since(start), 3.0);
    // Over TCP the other survivor may be the first to hang up.
    if (GetParam() == "shm") {
      EXPECT_THAT(
          error, AllOf(StartsWith("69 rank 1 (process "), HasSubstr("ended")));
    } else {
      EXPECT_THAT(error, AllOf(StartsWith("69 "), HasSubstr("lost rank")));
    }
    EXPECT_EQ(error_of([&] { group->barrier(); }), error);
    EXPECT_EQ(error_of([&] { group->all_gather_text("x"); }), error);
  });
  EXPECT_EQ(ranks.wait(0), 0);
  EXPECT_EQ(ranks.wait(2), 0);
  EXPECT_EQ(WTERMSIG(ranks.wait(1)), SIGKILL);
}

TEST_P(Failures, AStoppedRankIsNamedAfterTheTimeout) {
  Ranks ranks(2, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam(), milliseconds(1000)));
    sum_once(*group);
    if (info.rank == 1) {
      ::raise(SIGSTOP);
    }
    const Clock::time_point start = Clock::now();
    const std::string error = error_of([&] { sum_once(*group); });
    EXPECT_GT(seconds_since(start), 0.9);
    EXPECT_LT(seconds_since(start), 5.0);
    EXPECT_THAT(error, AllOf(StartsWith("69 "), HasSubstr("rank 1")));
    if (GetParam() == "shm") {
      EXPECT_THAT(error, HasSubstr("stopped"));
    }
  });
  EXPECT_EQ(ranks.wait(0), 0);
}

TEST_P(Failures, ARankThatEndsAfterItsLastCollectiveIsNoFault) {
  for (int i = 0; i < 5; ++i) {
    Ranks ranks(3, [](const RankInfo& info) {
      const auto group = make_process_group(info, options_of(GetParam()));
      sum_once(*group);
    });
    ranks.expect_success();
  }
}

TEST_P(Failures, WorkThatNobodyWaitsForEndsWithTheGroup) {
  Ranks ranks(2, [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of(GetParam()));
    for (int i = 0; i < 3; ++i) {
      group->all_reduce(at::ones({1000}), ReduceOp::sum);
    }
    group->barrier();
  });
  ranks.expect_success();
}

TEST(SharedMemoryFailures, ALateRankIsReportedOnceAndTheRunGoesOn) {
  Ranks ranks(2, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of("shm", milliseconds(5000)));
    if (info.rank == 1) {
      std::this_thread::sleep_for(milliseconds(3000));
      sum_once(*group);
      return;
    }
    testing::internal::CaptureStderr();
    sum_once(*group);
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_THAT(
        text,
        AllOf(HasSubstr("rank 0 has waited 2."), HasSubstr("for rank 1")));
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  });
  ranks.expect_success();
}

TEST(SharedMemoryFailures, DifferentCollectivesAreNamed) {
  Ranks ranks(2, [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("shm"));
    const std::string error = error_of([&] {
      if (info.rank == 0) {
        group->barrier();
      } else {
        sum_once(*group);
      }
    });
    EXPECT_THAT(
        error,
        AllOf(
            StartsWith("70 ranks do not agree"),
            HasSubstr("rank 0 calls barrier"),
            HasSubstr("rank 1 calls all_reduce of 100000 Float")));
  });
  ranks.expect_success();
}

TEST(SharedMemoryFailures, DifferentBoundsAreNoticed) {
  Ranks ranks(2, [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("shm"));
    const std::vector<int64_t> bounds{0, info.rank, 4};
    EXPECT_THAT(
        error_of([&] { group->all_gather(at::ones({4}), bounds)->wait(); }),
        AllOf(
            StartsWith("70 ranks do not agree"),
            HasSubstr("calls all_gather of 4 Float in other ranges")));
  });
  ranks.expect_success();
}

TEST(PeerProcess, StatesOfAProcess) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    while (true) {
      ::pause();
    }
  }
  PeerProcess process = PeerProcess::self();
  EXPECT_EQ(state_of(process), ProcessState::running);
  EXPECT_EQ(
      process.to_text(), PeerProcess::from_text(process.to_text()).to_text());

  process.pid = pid; // of another start time: not the process that was meant
  process.start_time = 1;
  EXPECT_EQ(state_of(process), ProcessState::gone);

  Ranks ranks(1, [](const RankInfo&) {
    const PeerProcess child = PeerProcess::self();
    EXPECT_EQ(state_of(child), ProcessState::running);
    const pid_t watcher = ::fork();
    if (watcher == 0) { // looks at its parent in three states
      ::kill(child.pid, SIGSTOP);
      while (state_of(child) != ProcessState::stopped) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      ::kill(child.pid, SIGKILL);
      while (state_of(child) != ProcessState::gone) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      ::_exit(0);
    }
    ::pause();
  });
  EXPECT_EQ(WTERMSIG(ranks.wait(0)), SIGKILL);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

TEST(PeerProcess, TextOfAnotherProgramIsRefused) {
  EXPECT_THAT(
      error_of([] { PeerProcess::from_text("hello"); }), StartsWith("69 "));
}

TEST(WorkQueue, TasksAfterAFailureFailAlike) {
  WorkQueue queue;
  bool ran = false;
  const auto first = queue.push([] { throw std::runtime_error("first"); });
  const auto second = queue.push([&] { ran = true; });
  for (const auto& work : {first, second, first}) {
    try {
      work->wait();
      ADD_FAILURE() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "first");
    }
  }
  EXPECT_FALSE(ran);
}

TEST(WorkQueue, TasksThatDidNotBeginFailWhenItGoes) {
  std::shared_ptr<Work> late;
  {
    WorkQueue queue;
    queue.push([] { std::this_thread::sleep_for(milliseconds(100)); });
    late = queue.push([] {});
  }
  EXPECT_THROW(late->wait(), base::Error);
}

} // namespace
} // namespace deepspeed::comm
