// Text as one word of a shell.
#pragma once

#include <string>

namespace deepspeed::base {

// Quoted where a POSIX shell would change it; else as it is.
std::string shell_word(const std::string& text);

} // namespace deepspeed::base
