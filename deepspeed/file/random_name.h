// Names that nobody else has.
#pragma once

#include <string>
#include <string_view>

namespace deepspeed::file {

// `size` characters, each equally likely. From the kernel, not from a seed or a
// process id: processes of two containers have the same id, again and again.
// `alphabet` has 1 to 256 characters. Error(internal).
std::string random_name(
    size_t size,
    std::string_view alphabet = "0123456789abcdef");

} // namespace deepspeed::file
