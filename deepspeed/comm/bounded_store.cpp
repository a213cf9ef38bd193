// A c10d store whose calls end in time.
#include "deepspeed/comm/bounded_store.h"

#include <utility>

#include "deepspeed/comm/bounded_call.h"

namespace deepspeed::comm {

BoundedStore::BoundedStore(
    c10::intrusive_ptr<c10d::Store> store,
    Clock::time_point deadline)
    : store_(std::move(store)), deadline_(deadline) {}

void BoundedStore::set_deadline(Clock::time_point deadline) {
  const std::lock_guard lock(mutex_);
  deadline_ = deadline;
}

void BoundedStore::release() {
  const std::lock_guard lock(mutex_);
  store_.reset();
}

template <typename Call>
auto BoundedStore::bounded(Call call) {
  c10::intrusive_ptr<c10d::Store> store;
  Clock::time_point deadline;
  {
    const std::lock_guard lock(mutex_);
    store = store_;
    deadline = deadline_;
  }
  if (!store) {
    throw std::runtime_error("the rendezvous is over");
  }
  auto result =
      finish_by(deadline, [store = std::move(store), call = std::move(call)] {
        return call(*store);
      });
  if (!result) {
    throw NoAnswer();
  }
  return *std::move(result);
}

c10::intrusive_ptr<c10d::Store> BoundedStore::clone() {
  const std::lock_guard lock(mutex_);
  return c10::make_intrusive<BoundedStore>(store_, deadline_);
}

void BoundedStore::set(const std::string& key, const Bytes& value) {
  bounded([key, value](c10d::Store& store) {
    store.set(key, value);
    return true;
  });
}

BoundedStore::Bytes BoundedStore::get(const std::string& key) {
  return bounded([key](c10d::Store& store) { return store.get(key); });
}

int64_t BoundedStore::add(const std::string& key, int64_t value) {
  return bounded(
      [key, value](c10d::Store& store) { return store.add(key, value); });
}

bool BoundedStore::deleteKey(const std::string& key) {
  return bounded([key](c10d::Store& store) { return store.deleteKey(key); });
}

bool BoundedStore::check(const std::vector<std::string>& keys) {
  return bounded([keys](c10d::Store& store) { return store.check(keys); });
}

int64_t BoundedStore::getNumKeys() {
  return bounded([](c10d::Store& store) { return store.getNumKeys(); });
}

void BoundedStore::wait(const std::vector<std::string>& keys) {
  bounded([keys](c10d::Store& store) {
    store.wait(keys);
    return true;
  });
}

void BoundedStore::wait(
    const std::vector<std::string>& keys,
    const std::chrono::milliseconds& timeout) {
  bounded([keys, timeout](c10d::Store& store) {
    store.wait(keys, timeout);
    return true;
  });
}

} // namespace deepspeed::comm
