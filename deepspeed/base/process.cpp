// What a program needs of its process before it opens the first file.
#include "deepspeed/base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>

#include "deepspeed/base/error.h"

namespace deepspeed::base {
namespace {

void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) {
      // The lowest free number is this one.
      [[maybe_unused]] const int fd = ::open("/dev/null", O_RDWR);
    }
  }
}

// A handler and not SIG_IGN, which programs that are started would inherit.
void fail_the_write(int signal) {
  struct sigaction before {};
  if (::sigaction(signal, nullptr, &before) != 0 ||
      (before.sa_flags & SA_SIGINFO) != 0 || before.sa_handler != SIG_DFL) {
    return;
  }
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

} // namespace

void prepare_process() {
  open_standard_streams();
  fail_the_write(SIGPIPE);
  fail_the_write(SIGXFSZ);
  std::array<char, PATH_MAX> folder{};
  if (::getcwd(folder.data(), folder.size()) == nullptr && errno == ENOENT) {
    throw Error(
        ExitCode::no_input,
        "the current folder was deleted",
        "",
        "change to one that exists: cd");
  }
}

} // namespace deepspeed::base
