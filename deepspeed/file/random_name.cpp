// Names that nobody else has.
#include "deepspeed/file/random_name.h"

#include <sys/random.h>

#include <array>
#include <cerrno>

#include "deepspeed/base/error.h"

namespace deepspeed::file {

std::string random_name(size_t size, std::string_view alphabet) {
  std::string name;
  std::array<unsigned char, 64> bytes{};
  // What lies above would favour the first characters.
  const size_t end = 256 / alphabet.size() * alphabet.size();
  while (name.size() < size) {
    const ssize_t n = ::getrandom(bytes.data(), bytes.size(), 0);
    if (n < 0 && errno != EINTR) {
      throw base::system_error(
          base::ExitCode::internal, "no randomness", "getrandom", errno);
    }
    for (ssize_t i = 0; i < n && name.size() < size; ++i) {
      if (const size_t byte = bytes[static_cast<size_t>(i)]; byte < end) {
        name += alphabet[byte % alphabet.size()];
      }
    }
  }
  return name;
}

} // namespace deepspeed::file
