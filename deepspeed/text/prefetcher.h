// Makes the next batches on a thread of its own while the model computes.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "deepspeed/text/batch.h"

namespace deepspeed::text {

// Batches first, first + 1, ... of an endless sequence, in order. What `make`
// throws comes out of next(), after the batches made before it. The destructor
// waits for the batch that is being made, no longer. One consumer.
class Prefetcher {
 public:
  using Make = std::function<PackedBatch(uint64_t index)>;

  // At most `depth` batches wait to be taken; depth >= 1. When less than half
  // of them are left the thread fills up again: to wake it takes longer than to
  // make a small batch.
  Prefetcher(Make make, uint64_t first, size_t depth = 4);
  ~Prefetcher();

  PackedBatch next();
  // How long next() had to wait for data, in all.
  double waited_seconds() const {
    return waited_seconds_;
  }

 private:
  void run(const std::stop_token& stop);
  // With the mutex, which `lock` holds, but for the time of make_. False: it
  // failed.
  bool make_one(std::unique_lock<std::mutex>& lock);
  bool is_low() const; // with the mutex

  const Make make_;
  const size_t depth_;
  double waited_seconds_ = 0.0; // of the consumer alone
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<PackedBatch> ready_; // protected by mutex_, as are the next two
  std::exception_ptr failure_;
  uint64_t index_; // of the next batch to make
  std::jthread thread_; // the last member: stops before the others go
};

} // namespace deepspeed::text
