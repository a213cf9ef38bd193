// Lines on standard error: one write per line, so that ranks never mix halves.
#pragma once

#include <string_view>

namespace deepspeed::base {

// Writes `text` with a single write(2) to standard error; a final newline is
// added if it has none. Thread-safe.
void write_line(std::string_view text);

// "LEVEL message" lines. Thread-safe. A quiet process leaves them out: with
// several ranks, rank 0 speaks for all.
void log_info(std::string_view message);
void log_warning(std::string_view message);
void set_quiet(bool quiet);

} // namespace deepspeed::base
