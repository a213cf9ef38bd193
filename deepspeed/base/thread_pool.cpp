// Threads that share out the numbered tasks of one loop after another.
#include "deepspeed/base/thread_pool.h"

#include <sched.h>

#include <chrono>
#include <iterator>
#include <utility>

#include "deepspeed/base/pause.h"

namespace deepspeed::base {
namespace {

// Longer than what lies between two loops of a training step, shorter than what
// it would cost others.
constexpr std::chrono::microseconds kSpinTime{200};
// Of some 10 to 50 ns each, after which the processor is offered to others.
constexpr int kPatience = 2000;

// Waits for `done` without sleeping, for kSpinTime at most.
template <typename Done>
bool spin_until(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) {
        return true;
      }
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

} // namespace

ThreadPool::ThreadPool(int threads)
    : shares_(static_cast<size_t>(threads > 1 ? threads : 1)) {
  workers_.reserve(shares_.size() - 1);
  for (size_t share = 1; share < shares_.size(); ++share) {
    workers_.emplace_back([this, share] { serve(share); });
  }
}

ThreadPool::~ThreadPool() {
  ends_ = true;
  ++loops_;
  loops_.notify_all();
  for (std::thread& worker : workers_) {
    worker.join();
  }
}

void ThreadPool::run_calls(int64_t count, Calls calls) {
  if (workers_.empty() || count <= 1 || in_use_.exchange(true)) {
    for (int64_t i = 0; i < count; ++i) {
      calls.call(calls.context, i);
    }
    return;
  }
  calls_ = calls;
  const int64_t shares = std::ssize(shares_);
  for (int64_t i = 0; i < shares; ++i) {
    shares_[i].next.store(count * i / shares, std::memory_order_relaxed);
    shares_[i].end = count * (i + 1) / shares;
  }
  door_.store(1, std::memory_order_release);
  // A sleeper first raises `sleepers_`, then looks at `loops_`; here it is the
  // other way round, both sequentially consistent: no wake-up is lost.
  ++loops_;
  if (sleepers_ > 0) {
    loops_.notify_all();
  }
  take_tasks(0);
  door_.fetch_and(~uint32_t{1}, std::memory_order_acq_rel);
  // Only for those that are inside: they have a task.
  for (int i = 0; door_.load(std::memory_order_acquire) != 0; ++i) {
    if (i < kPatience) {
      pause_briefly();
    } else {
      ::sched_yield();
    }
  }
  const std::exception_ptr error = std::exchange(error_, nullptr);
  in_use_ = false;
  if (error != nullptr) {
    std::rethrow_exception(error);
  }
}

void ThreadPool::take_tasks(size_t first_share) {
  try {
    for (size_t i = 0; i < shares_.size(); ++i) {
      Share& share = shares_[(first_share + i) % shares_.size()];
      // Looked at first: an empty share is not written to.
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const int64_t task = share.next++;
        if (task < share.end) {
          calls_.call(calls_.context, task);
        }
      }
    }
  } catch (...) {
    const std::lock_guard lock(error_mutex_);
    error_ = std::current_exception();
    for (Share& share : shares_) {
      share.next = share.end;
    }
  }
}

bool ThreadPool::enter() {
  uint32_t door = door_.load(std::memory_order_relaxed);
  while ((door & 1) != 0) {
    if (door_.compare_exchange_weak(
            door, door + 2, std::memory_order_acq_rel)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::serve(size_t share) {
  uint32_t seen = 0;
  while (true) {
    const auto called = [&] { return loops_.load() != seen; };
    if (!spin_until(called)) {
      ++sleepers_;
      loops_.wait(seen);
      --sleepers_;
    }
    if (ends_) {
      return;
    }
    seen = loops_;
    if (enter()) {
      take_tasks(share);
      door_.fetch_sub(2, std::memory_order_acq_rel);
    }
  }
}

} // namespace deepspeed::base
