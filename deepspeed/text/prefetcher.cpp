// Makes the next batches on a thread of its own while the model computes.
#include "deepspeed/text/prefetcher.h"

#include <chrono>
#include <stdexcept>
#include <utility>

#include "deepspeed/base/trace.h"

namespace deepspeed::text {

Prefetcher::Prefetcher(Make make, uint64_t first, size_t depth)
    : make_(std::move(make)), depth_(depth), index_(first) {
  if (depth == 0) {
    throw std::invalid_argument("Prefetcher: depth must be at least 1");
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Prefetcher::~Prefetcher() = default; // ~jthread asks to stop, and joins

bool Prefetcher::is_low() const {
  return ready_.size() <= (depth_ - 1) / 2;
}

void Prefetcher::run(const std::stop_token& stop) {
  base::name_this_thread("prefetch");
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return is_low(); })) {
    while (ready_.size() < depth_) {
      if (stop.stop_requested() || !make_one(lock)) {
        return;
      }
    }
  }
}

bool Prefetcher::make_one(std::unique_lock<std::mutex>& lock) {
  const uint64_t index = index_++;
  lock.unlock();
  PackedBatch batch;
  std::exception_ptr failure;
  try {
    const base::Span span({"make batch"});
    batch = make_(index);
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  if (failure) {
    failure_ = failure;
  } else {
    ready_.push_back(std::move(batch));
  }
  changed_.notify_all();
  return !failure;
}

PackedBatch Prefetcher::next() {
  using Clock = std::chrono::steady_clock;
  std::unique_lock lock(mutex_);
  if (ready_.empty() && !failure_) {
    const base::Span span({"wait for data"});
    const Clock::time_point start = Clock::now();
    changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
    waited_seconds_ +=
        std::chrono::duration<double>(Clock::now() - start).count();
  }
  if (ready_.empty()) {
    std::rethrow_exception(failure_);
  }
  PackedBatch batch = std::move(ready_.front());
  ready_.pop_front();
  if (is_low()) {
    changed_.notify_all();
  }
  return batch;
}

} // namespace deepspeed::text
