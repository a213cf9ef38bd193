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

// range(begin, end) for ranges that make up [begin, end), each at least `grain`
// long but for the last.
template <typename Range>
void for_ranges(int64_t begin, int64_t end, int64_t grain, Range&& range) {
  // For each thread so many that none waits long for another.
  constexpr int64_t kShares = 4;
  const int64_t most = std::max<int64_t>((end - begin) / grain, 1);
  const int64_t wanted = threads() == 1 ? 1 : threads() * kShares;
  const int64_t parts = std::min(most, wanted);
  // Whole grains, so that threads do not write to one line of the cache.
  const int64_t length =
      ((end - begin + parts - 1) / parts + grain - 1) / grain * grain;
  for_tasks(
      (end - begin + length - 1) / std::max<int64_t>(length, 1),
      [&](int64_t part) {
        const int64_t first = begin + part * length;
        range(first, std::min(first + length, end));
      });
}

} // namespace deepspeed::flat
