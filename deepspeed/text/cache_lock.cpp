// One program makes a token cache, the others wait for it.
#include "deepspeed/text/cache_lock.h"

#include <unistd.h>

#include <array>
#include <thread>

#include "deepspeed/base/log.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(50);
constexpr auto kShowEvery = std::chrono::seconds(1);

std::string own_name() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return "pid " + std::to_string(::getpid()) + " on host " + host.data();
}

bool is_held(file::FileLock& lock) {
  return lock.try_lock() == file::FileLock::Attempt::held;
}

void wait_for_lock(
    file::FileLock& lock,
    const std::string& path,
    std::chrono::milliseconds patience,
    const std::function<bool()>& stopped) {
  std::string holder = lock.holder();
  Clock::time_point news = Clock::now();
  base::log_info(
      "another program makes the token cache, waiting: " + holder + ": " +
      path);
  while (is_held(lock)) {
    if (stopped && stopped()) {
      throw stopped_error(path);
    }
    if (std::string now = lock.holder(); now != holder) {
      holder = std::move(now);
      news = Clock::now();
    } else if (Clock::now() - news > patience) {
      throw Error(
          ExitCode::unavailable,
          "the program that makes the token cache has not got on for " +
              std::to_string(
                  std::chrono::duration_cast<std::chrono::seconds>(patience)
                      .count()) +
              " seconds: " + holder,
          path,
          "end that program, or set DEEPSPEED_CACHE_DIR to another folder");
    }
    std::this_thread::sleep_for(kPoll);
  }
}

} // namespace

CacheLock::CacheLock(
    const std::string& path,
    std::chrono::milliseconds patience,
    const std::function<bool()>& stopped)
    : lock_(path, "cannot create") {
  if (is_held(lock_)) {
    wait_for_lock(lock_, path, patience, stopped);
  }
  if (!lock_.held()) {
    base::log_warning(
        "this file system has no locks: two programs may make the token cache "
        "at once, and what killed ones left is not removed: " +
        path);
  }
  lock_.tell(own_name());
}

void CacheLock::show(uint64_t done, uint64_t total) {
  const Clock::time_point now = Clock::now();
  if (now - shown_ < kShowEvery) {
    return;
  }
  shown_ = now;
  lock_.tell(
      own_name() + ", " + std::to_string(done >> 20) + " of " +
      std::to_string(total >> 20) + " MiB");
}

base::Error stopped_error(const std::string& where) {
  return Error(
      ExitCode::stopped,
      "stopped before the first step: nothing is lost",
      where,
      "start it again with the same command");
}

} // namespace deepspeed::text
