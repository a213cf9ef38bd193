// Appending to a log that is not worth stopping for.
#pragma once

#include <string>
#include <string_view>

namespace deepspeed::report {

// Writes all of `text` to `fd`. If that fails: one warning with `path` on
// standard error, the file is closed and `fd` becomes -1. With fd -1 it does
// nothing.
void append_or_close(int& fd, const std::string& path, std::string_view text);

} // namespace deepspeed::report
