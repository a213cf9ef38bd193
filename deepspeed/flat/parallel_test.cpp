// Loops shared out among threads, on libtorch's threads and on our own.
#include "deepspeed/flat/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <vector>

namespace deepspeed::flat {
namespace {

// Every element of [begin, end) once, in ranges of at least `grain`.
bool covers(int64_t begin, int64_t end, int64_t grain) {
  std::vector<std::atomic<int>> calls(static_cast<size_t>(end));
  std::atomic<bool> fine{true};
  for_ranges(begin, end, grain, [&](int64_t first, int64_t last) {
    fine = fine && first < last && (last - first >= grain || last == end) &&
        (first - begin) % grain == 0;
    for (int64_t i = first; i < last; ++i) {
      ++calls[static_cast<size_t>(i)];
    }
  });
  for (int64_t i = 0; i < end; ++i) {
    fine = fine && calls[static_cast<size_t>(i)] == (i >= begin ? 1 : 0);
  }
  return fine;
}

bool cover_all() {
  bool fine = true;
  for (const int64_t grain : {1, 3, 64}) {
    for (const int64_t end : {7, 8, 63, 64, 65, 1000}) {
      fine = fine && covers(0, end, grain) && covers(7, end, grain);
    }
  }
  return fine;
}

// Two loops of one list, and the list again.
bool lists_run() {
  TaskList list;
  bool fine = true;
  for (int round = 0; round < 2; ++round) {
    std::vector<std::atomic<int>> a(5);
    std::vector<std::atomic<int>> b(100);
    list.add(5, [&](int64_t i) { ++a[static_cast<size_t>(i)]; });
    list.add(0, [&](int64_t) { fine = false; });
    list.add_ranges(0, 100, 7, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        ++b[static_cast<size_t>(i)];
      }
    });
    list.run();
    for (const auto* counts : {&a, &b}) {
      for (const auto& count : *counts) {
        fine = fine && count == 1;
      }
    }
  }
  list.run(); // nothing is left
  return fine;
}

TEST(Parallel, RangesCoverAllOnce) {
  EXPECT_TRUE(cover_all());
}

TEST(Parallel, AListRunsAllLoopsOnce) {
  EXPECT_TRUE(lists_run());
}

// In a process of its own: they are for good.
TEST(ParallelDeathTest, OwnThreads) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        use_own_threads(3);
        const bool fine = threads() == 3 && at::get_num_threads() == 1 &&
            cover_all() && lists_run();
        std::_Exit(fine ? 0 : 1);
      },
      testing::ExitedWithCode(0),
      "");
}

} // namespace
} // namespace deepspeed::flat
