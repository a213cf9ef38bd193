// Threads that share out the numbered tasks of one loop after another.
//
// A loop ends when its tasks are done, whether or not every thread came to take
// one: where other programs have the processor, or a thread was put to sleep,
// the others do its part. (An OpenMP loop waits for all its threads.) Threads
// that find no loop spin for some microseconds, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace deepspeed::base {

class ThreadPool {
 public:
  // `threads` of them with the calling one, at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const {
    return static_cast<int>(workers_.size()) + 1;
  }

  // Calls task(i) once for each i in [0, count), in any order, on any threads,
  // and returns when all calls have. Thread t begins with the t-th part of
  // [0, count), so that what it wrote in one loop is in its cache for the next;
  // then it takes what others have not begun. Of the exceptions that calls
  // throw, one is thrown here; tasks that nobody has begun by then are left
  // out. Any thread may call this, also within a task: while one loop runs,
  // others run in the thread that asks for them.
  template <typename Task>
  void run(int64_t count, Task&& task) {
    const auto call = [](void* context, int64_t i) {
      (*static_cast<std::remove_reference_t<Task>*>(context))(i);
    };
    run_calls(
        count, {call, const_cast<void*>(static_cast<const void*>(&task))});
  }

 private:
  struct Calls {
    void (*call)(void* context, int64_t task) = nullptr;
    void* context = nullptr;
  };

  // The tasks that a thread begins with.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void run_calls(int64_t count, Calls calls);
  void take_tasks(size_t first_share);
  void serve(size_t share);
  bool enter();

  std::vector<std::thread> workers_;
  std::atomic<bool> in_use_{false};
  // Of the loop that runs; written while no worker is inside.
  Calls calls_;
  std::vector<Share> shares_; // the calling thread's, then the workers'
  std::mutex error_mutex_;
  std::exception_ptr error_;
  // 1 while workers may enter, plus 2 for each one inside.
  alignas(64) std::atomic<uint32_t> door_{0};
  // Counts the loops; workers sleep on it.
  alignas(64) std::atomic<uint32_t> loops_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> ends_{false};
};

} // namespace deepspeed::base
