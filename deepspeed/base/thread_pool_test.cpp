// Loops shared out among threads.
#include "deepspeed/base/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <set>
#include <stdexcept>

namespace deepspeed::base {
namespace {

TEST(ThreadPool, EveryTaskRunsOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 3, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      pool.run(count, [&](int64_t i) { ++calls[static_cast<size_t>(i)]; });
      for (const auto& n : calls) {
        EXPECT_EQ(n, 1);
      }
    }
  }
}

// Many short loops, with pauses in which the threads fall asleep.
TEST(ThreadPool, OneLoopAfterAnother) {
  ThreadPool pool(4);
  std::atomic<int64_t> sum{0};
  for (int loop = 0; loop < 20000; ++loop) {
    pool.run(loop % 7, [&](int64_t i) { sum += i + 1; });
    if (loop % 2000 == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  int64_t expected = 0;
  for (int loop = 0; loop < 20000; ++loop) {
    const int64_t n = loop % 7;
    expected += n * (n + 1) / 2;
  }
  EXPECT_EQ(sum, expected);
}

TEST(ThreadPool, SeveralThreadsTakePart) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::atomic<int> waiting{0};
  // Each task waits for another one: one thread alone would not get on.
  pool.run(2, [&](int64_t) {
    ++waiting;
    while (waiting < 2) {
      std::this_thread::yield();
    }
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 2u);
}

TEST(ThreadPool, ALoopWithinATaskRunsInItsThread) {
  ThreadPool pool(2);
  std::atomic<int> inner{0};
  pool.run(4, [&](int64_t) {
    const auto id = std::this_thread::get_id();
    pool.run(3, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), id);
      ++inner;
    });
  });
  EXPECT_EQ(inner, 12);
}

TEST(ThreadPool, SeveralThreadsMayAsk) {
  ThreadPool pool(2);
  std::atomic<int> calls{0};
  const auto ask = [&] {
    for (int i = 0; i < 500; ++i) {
      pool.run(5, [&](int64_t) { ++calls; });
    }
  };
  std::thread other(ask);
  ask();
  other.join();
  EXPECT_EQ(calls, 5000);
}

TEST(ThreadPool, AnExceptionReachesTheCaller) {
  ThreadPool pool(3);
  for (int loop = 0; loop < 100; ++loop) {
    EXPECT_THROW(
        pool.run(
            50,
            [&](int64_t i) {
              if (i == 17) {
                throw std::runtime_error("task 17");
              }
            }),
        std::runtime_error);
    std::atomic<int> calls{0};
    pool.run(50, [&](int64_t) { ++calls; });
    EXPECT_EQ(calls, 50);
  }
}

std::atomic<bool> held{false};
std::atomic<bool> released{false};

// Holds up the thread that it comes to.
void hold(int /*signal*/) {
  held = true;
  while (!released) {
  }
}

// A loop ends while a thread that got none of its tasks is held up elsewhere.
TEST(ThreadPool, ALoopDoesNotWaitForIdleThreads) {
  ThreadPool pool(2);
  const pthread_t own = ::pthread_self();
  std::atomic<pthread_t> worker{own};
  std::atomic<int> inside{0};
  // Each task waits for the other one: one of the two is the worker's.
  pool.run(2, [&](int64_t) {
    ++inside;
    while (inside < 2) {
      std::this_thread::yield();
    }
    if (!::pthread_equal(::pthread_self(), own)) {
      worker = ::pthread_self();
    }
  });
  ASSERT_FALSE(::pthread_equal(worker, own));
  std::signal(SIGUSR1, hold);
  ASSERT_EQ(::pthread_kill(worker, SIGUSR1), 0);
  while (!held) {
    std::this_thread::yield();
  }
  int tasks = 0; // all in this thread
  pool.run(100, [&](int64_t) { ++tasks; });
  EXPECT_EQ(tasks, 100);
  released = true;
  std::signal(SIGUSR1, SIG_DFL);
}

} // namespace
} // namespace deepspeed::base
