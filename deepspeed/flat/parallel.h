// How loops over tensors are shared out among threads.
//
// By libtorch's threads, until a program asks for threads of its own: these do
// not wait for each other where other programs have the processor. Not both at
// a time: idle threads of OpenMP spin. So results must not depend on how a loop
// is cut.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "deepspeed/base/thread_pool.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// Threads that loops are shared out among.
int64_t threads();

// From now on loops run on `threads` own threads, and libtorch's operators on
// one. Once in a process, before its first loop; for programs in which
// libtorch's share of the work is small.
void use_own_threads(int threads);

// The pool of use_own_threads(), or null.
base::ThreadPool* own_threads();

// task(i) for each i in [0, count); the next free thread takes the next one.
template <typename Task>
void for_tasks(int64_t count, Task&& task) {
  if (base::ThreadPool* const pool = own_threads()) {
    pool->run(count, task);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(
      0, std::min(count, threads()), 1, [&](int64_t begin, int64_t end) {
        // One range may stand for several threads: it takes tasks all the same.
        if (begin < end) {
          for (int64_t i = next++; i < count; i = next++) {
            task(i);
          }
        }
      });
}

// How for_ranges() cuts [begin, end).
struct Ranges {
  Ranges(int64_t begin, int64_t end, int64_t grain);

  int64_t begin;
  int64_t end;
  int64_t length; // of each but the last
  int64_t count;

  template <typename Range>
  void call(Range&& range, int64_t i) const {
    const int64_t first = begin + i * length;
    range(first, std::min(first + length, end));
  }
};

// range(begin, end) for ranges that make up [begin, end), each at least `grain`
// long but for the last.
template <typename Range>
void for_ranges(int64_t begin, int64_t end, int64_t grain, Range&& range) {
  const Ranges ranges(begin, end, grain);
  for_tasks(ranges.count, [&](int64_t i) { ranges.call(range, i); });
}

// Loops that may run side by side, to be shared out as one: threads wait for
// each other once.
class TaskList {
 public:
  // As for_tasks() and for_ranges(), later.
  void add(int64_t count, std::function<void(int64_t task)> task);
  void add_ranges(
      int64_t begin,
      int64_t end,
      int64_t grain,
      std::function<void(int64_t begin, int64_t end)> range);
  // Runs all that were added, and forgets them.
  void run();

 private:
  struct Loop {
    int64_t count;
    std::function<void(int64_t)> task;
  };
  std::vector<Loop> loops_;
  int64_t count_ = 0;
};

} // namespace deepspeed::flat
