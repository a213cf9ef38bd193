// Collectives that run while the caller goes on.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "deepspeed/base/trace.h"

namespace deepspeed::comm {

// One collective under way. Thread-safe.
class Work {
 public:
  // Returns when the collective is done on this rank; throws what made it
  // fail, each time it is called.
  void wait();
  bool is_done() const;
  // How long it took on this rank, waiting for other ranks included; 0 before
  // it is done.
  double seconds() const;

 private:
  friend class WorkQueue;
  void finish(std::exception_ptr error, double seconds);

  mutable std::mutex mutex_;
  std::condition_variable done_changed_;
  bool done_ = false;
  double seconds_ = 0;
  std::exception_ptr error_;
};

// Runs tasks one after the other on a thread of its own, which sleeps when
// there are none. After a task has thrown, all later ones fail with the same
// exception without being run. Thread-safe.
class WorkQueue {
 public:
  WorkQueue();
  // Ends after the task under way; those not begun fail.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // `name` is what a profile calls the task.
  std::shared_ptr<Work> push(
      std::function<void()> task,
      base::SpanName name = {"exchange"});

 private:
  struct Entry {
    std::function<void()> task;
    std::shared_ptr<Work> work;
    base::SpanName name;
  };
  void run();

  std::mutex mutex_;
  std::condition_variable entries_changed_;
  std::deque<Entry> entries_;
  bool stopping_ = false;
  std::exception_ptr error_; // of the first task that failed
  std::thread thread_; // last: it uses all of the above
};

} // namespace deepspeed::comm
