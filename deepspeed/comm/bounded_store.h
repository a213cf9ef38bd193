// A c10d store whose calls end in time.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace deepspeed::comm {

// Thrown by a call that has not ended at the deadline.
class NoAnswer : public std::runtime_error {
 public:
  NoAnswer() : std::runtime_error("the store does not answer") {}
};

// Passes calls on to another store, none beyond the deadline: a TCPStore waits
// for good when the process that serves it is stopped. Thread-safe as that
// store is.
class BoundedStore : public c10d::Store {
 public:
  using Clock = std::chrono::steady_clock;
  using Bytes = std::vector<uint8_t>;

  BoundedStore(
      c10::intrusive_ptr<c10d::Store> store,
      Clock::time_point deadline);

  void set_deadline(Clock::time_point deadline);
  // Lets go of the other store, though somebody (Gloo) keeps this object: every
  // later call throws.
  void release();

  c10::intrusive_ptr<c10d::Store> clone() override;
  void set(const std::string& key, const Bytes& value) override;
  Bytes get(const std::string& key) override;
  int64_t add(const std::string& key, int64_t value) override;
  bool deleteKey(const std::string& key) override;
  bool check(const std::vector<std::string>& keys) override;
  int64_t getNumKeys() override;
  void wait(const std::vector<std::string>& keys) override;
  void wait(
      const std::vector<std::string>& keys,
      const std::chrono::milliseconds& timeout) override;
  using c10d::Store::get;
  using c10d::Store::set;

 private:
  template <typename Call>
  auto bounded(Call call);

  std::mutex mutex_; // of the members below
  c10::intrusive_ptr<c10d::Store> store_;
  Clock::time_point deadline_;
};

} // namespace deepspeed::comm
