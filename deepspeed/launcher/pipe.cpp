// Pipes and pseudo-terminals.
#include "deepspeed/launcher/pipe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <cerrno>
#include <cstdlib>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

namespace {

[[noreturn]] void fail(const char* action) {
  base::Error error =
      base::system_error(base::ExitCode::internal, action, "", errno);
  if (errno == EMFILE) {
    throw base::Error(
        error.code(), error.what(), "", "raise the limit: ulimit -n 4096");
  }
  throw error;
}

} // namespace

void set_nonblocking(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    fail("cannot make a pipe");
  }
  set_nonblocking(ends[0]);
  return {file::Descriptor(ends[0]), file::Descriptor(ends[1])};
}

void copy_terminal_size(int like, int master) {
  winsize size{};
  if (::ioctl(like, TIOCGWINSZ, &size) == 0) {
    ::ioctl(master, TIOCSWINSZ, &size);
  }
}

PseudoTerminal make_terminal(int like) {
  file::Descriptor master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  char name[128];
  if (!master.is_open() || ::grantpt(master.get()) != 0 ||
      ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), name, sizeof name) != 0) {
    fail("cannot make a pseudo-terminal");
  }
  file::Descriptor slave(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  termios mode{};
  if (!slave.is_open() || ::tcgetattr(slave.get(), &mode) != 0) {
    fail("cannot open a pseudo-terminal");
  }
  ::cfmakeraw(&mode);
  ::tcsetattr(slave.get(), TCSANOW, &mode);
  copy_terminal_size(like, master.get());
  set_nonblocking(master.get());
  return {std::move(master), std::move(slave)};
}

} // namespace deepspeed::launcher
