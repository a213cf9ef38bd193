// How loops over tensors are shared out among threads.
#include "deepspeed/flat/parallel.h"

#include <iterator>
#include <utility>

namespace deepspeed::flat {
namespace {

// Never destroyed: a process may end while another thread runs a loop.
base::ThreadPool* pool = nullptr;

} // namespace

int64_t threads() {
  return pool != nullptr ? pool->threads() : at::get_num_threads();
}

void use_own_threads(int threads) {
  TORCH_CHECK(pool == nullptr, "use_own_threads() was called before");
  at::set_num_threads(1);
  pool = new base::ThreadPool(threads);
}

base::ThreadPool* own_threads() {
  return pool;
}

Ranges::Ranges(int64_t begin, int64_t end, int64_t grain)
    : begin(begin), end(end) {
  // For each thread so many that none waits long for another.
  constexpr int64_t kShares = 4;
  const int64_t most = std::max<int64_t>((end - begin) / grain, 1);
  const int64_t wanted = threads() == 1 ? 1 : threads() * kShares;
  const int64_t parts = std::min(most, wanted);
  // Whole grains, so that threads do not write to one line of the cache.
  length = std::max<int64_t>((end - begin + parts - 1) / parts, 1);
  length = (length + grain - 1) / grain * grain;
  count = (end - begin + length - 1) / length;
}

void TaskList::add(int64_t count, std::function<void(int64_t)> task) {
  loops_.push_back({count, std::move(task)});
  count_ += count;
}

void TaskList::add_ranges(
    int64_t begin,
    int64_t end,
    int64_t grain,
    std::function<void(int64_t, int64_t)> range) {
  const Ranges ranges(begin, end, grain);
  add(ranges.count,
      [ranges, range = std::move(range)](int64_t i) { ranges.call(range, i); });
}

void TaskList::run() {
  // A thread begins with one part of the whole: that is made of its parts of
  // all loops.
  struct Part {
    int64_t first; // in the order of the whole
    int64_t begin; // in the loop
    const std::function<void(int64_t)>* task;
  };
  const int64_t shares = count_ > 1 ? threads() : 1;
  std::vector<Part> parts;
  int64_t first = 0;
  for (int64_t share = 0; share < shares; ++share) {
    for (const Loop& loop : loops_) {
      const int64_t begin = loop.count * share / shares;
      const int64_t end = loop.count * (share + 1) / shares;
      if (begin < end) {
        parts.push_back({first, begin, &loop.task});
        first += end - begin;
      }
    }
  }
  for_tasks(count_, [&](int64_t i) {
    const Part& part = *std::prev(std::upper_bound(
        parts.begin(), parts.end(), i, [](int64_t task, const Part& p) {
          return task < p.first;
        }));
    (*part.task)(part.begin + i - part.first);
  });
  loops_.clear();
  count_ = 0;
}

} // namespace deepspeed::flat
