// A file descriptor that is closed when its owner goes.
#pragma once

#include <unistd.h>

#include <utility>

namespace deepspeed::file {

// Of a file, a pipe, a socket or a terminal; -1 is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    reset();
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const {
    return fd_;
  }
  bool is_open() const {
    return fd_ >= 0;
  }
  // For the caller to close.
  int release() {
    return std::exchange(fd_, -1);
  }
  void reset() {
    if (is_open()) {
      ::close(release());
    }
  }

 private:
  int fd_ = -1;
};

} // namespace deepspeed::file
