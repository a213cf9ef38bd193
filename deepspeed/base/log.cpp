// Lines on standard error: one write per line, so that ranks never mix halves.
#include "deepspeed/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

namespace deepspeed::base {
namespace {

std::atomic<bool> quiet_process = false;

} // namespace

void write_line(std::string_view text) {
  std::string line(text);
  if (line.empty() || line.back() != '\n') {
    line += '\n';
  }
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n =
        ::write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return; // nobody reads: a log line is not worth stopping for
    }
    done += static_cast<size_t>(n);
  }
}

void log_info(std::string_view message) {
  if (!quiet_process) {
    write_line("info: " + std::string(message));
  }
}

void log_warning(std::string_view message) {
  if (!quiet_process) {
    write_line("warning: " + std::string(message));
  }
}

void set_quiet(bool quiet) {
  quiet_process = quiet;
}

} // namespace deepspeed::base
