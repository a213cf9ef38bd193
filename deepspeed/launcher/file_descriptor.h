// A file descriptor that is closed when its owner goes.
#pragma once

#include <unistd.h>

#include <utility>

namespace deepspeed::launcher {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    reset();
  }
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const {
    return fd_;
  }
  bool is_open() const {
    return fd_ >= 0;
  }
  void reset() {
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  FileDescriptor reader;
  FileDescriptor writer;
};

// Both ends close on exec; the reader does not block. Error(internal) when the
// limit of open files is reached.
Pipe make_pipe();

// A pseudo-terminal of the size of the terminal `like`. What is written to the
// slave comes out of the master unchanged; the master does not block.
struct PseudoTerminal {
  FileDescriptor master;
  FileDescriptor slave;
};
PseudoTerminal make_terminal(int like);

// Gives the terminal behind `master` the size of the terminal `like`.
void copy_terminal_size(int like, int master);

void set_nonblocking(int fd);

} // namespace deepspeed::launcher
