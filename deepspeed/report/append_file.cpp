// Appending to a log that is not worth stopping for.
#include "deepspeed/report/append_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "deepspeed/base/log.h"

namespace deepspeed::report {

void append_or_close(int& fd, const std::string& path, std::string_view text) {
  while (fd >= 0 && !text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EINTR) {
      base::log_warning(
          "cannot write " + path + ": " + std::strerror(errno) +
          "; training goes on without this file");
      ::close(std::exchange(fd, -1));
    }
  }
}

} // namespace deepspeed::report
