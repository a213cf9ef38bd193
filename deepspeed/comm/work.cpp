// The thread on which the collectives of a process group run.
#include "deepspeed/comm/work.h"

#include <chrono>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/base/trace.h"

namespace deepspeed::comm {

void Work::wait() {
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [&] { return done_; });
  if (error_) {
    std::rethrow_exception(error_);
  }
}

double Work::seconds() const {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

bool Work::is_done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

void Work::finish(std::exception_ptr error, double seconds) {
  const std::lock_guard lock(mutex_);
  seconds_ = seconds;
  done_ = true;
  error_ = std::move(error);
  done_changed_.notify_all();
}

WorkQueue::WorkQueue() : thread_([this] { run(); }) {}

WorkQueue::~WorkQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (!error_) {
      error_ = std::make_exception_ptr(base::Error(
          base::ExitCode::internal,
          "the process group ended before this collective began",
          "",
          "wait for all work before the group goes away"));
    }
  }
  entries_changed_.notify_one();
  thread_.join();
}

std::shared_ptr<Work> WorkQueue::push(
    std::function<void()> task,
    base::SpanName name) {
  auto work = std::make_shared<Work>();
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back({std::move(task), work, name});
  }
  entries_changed_.notify_one();
  return work;
}

void WorkQueue::run() {
  base::name_this_thread("communication");
  std::unique_lock lock(mutex_);
  while (true) {
    entries_changed_.wait(lock, [&] { return stopping_ || !entries_.empty(); });
    if (entries_.empty()) {
      return;
    }
    Entry entry = std::move(entries_.front());
    entries_.pop_front();
    std::exception_ptr error = error_;
    lock.unlock();
    const auto start = std::chrono::steady_clock::now();
    if (!error) {
      try {
        const base::Span span(entry.name);
        entry.task();
      } catch (...) {
        error = std::current_exception();
      }
    }
    entry.task = nullptr; // lets go of its tensors before the caller goes on
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    entry.work->finish(error, seconds.count());
    lock.lock();
    if (!error_) {
      error_ = error;
    }
  }
}

} // namespace deepspeed::comm
