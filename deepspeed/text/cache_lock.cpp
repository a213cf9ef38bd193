// One program makes a token cache, the others wait for it.
#include "deepspeed/text/cache_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>

#include "deepspeed/base/log.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(50);
constexpr auto kShowEvery = std::chrono::seconds(1);

// The first line of a lock file, printable characters only.
std::string holder_of(int fd) {
  std::array<char, 256> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  std::string holder;
  for (ssize_t i = 0; i < n && text[i] != '\n'; ++i) {
    holder += text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
  }
  return holder.empty() ? "another program" : holder;
}

std::string own_name() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return "pid " + std::to_string(::getpid()) + " on host " + host.data();
}

bool try_lock(int fd) {
  // Everything else but "held" is a file system without locks.
  return ::flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

void wait_for_lock(
    int fd,
    const std::string& path,
    std::chrono::milliseconds patience,
    const std::function<bool()>& stopped) {
  std::string holder = holder_of(fd);
  Clock::time_point news = Clock::now();
  base::log_info(
      "another program makes the token cache, waiting: " + holder + ": " +
      path);
  while (!try_lock(fd)) {
    if (stopped && stopped()) {
      throw stopped_error(path);
    }
    if (std::string now = holder_of(fd); now != holder) {
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
    const std::function<bool()>& stopped) {
  // A link would let the text below land in a file of somebody else.
  fd_ = ::open(
      path.c_str(),
      O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
      0666);
  if (fd_ < 0) {
    throw base::system_error(
        ExitCode::cannot_create, "cannot create", path, errno);
  }
  try {
    if (!try_lock(fd_)) {
      wait_for_lock(fd_, path, patience, stopped);
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
  write("");
}

CacheLock::~CacheLock() {
  ::close(fd_);
}

void CacheLock::show(uint64_t done, uint64_t total) {
  const Clock::time_point now = Clock::now();
  if (now - shown_ < kShowEvery) {
    return;
  }
  shown_ = now;
  write(
      ", " + std::to_string(done >> 20) + " of " + std::to_string(total >> 20) +
      " MiB");
}

// Only for people and for patience: the lock holds without the text.
void CacheLock::write(const std::string& how_far) const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    return;
  }
  const std::string text = own_name() + how_far + "\n";
  [[maybe_unused]] const ssize_t n = ::pwrite(fd_, text.data(), text.size(), 0);
}

base::Error stopped_error(const std::string& where) {
  return Error(
      ExitCode::stopped,
      "stopped before the first step: nothing is lost",
      where,
      "start it again with the same command");
}

} // namespace deepspeed::text
