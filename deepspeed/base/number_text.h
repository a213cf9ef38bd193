// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace deepspeed::base {

std::string format_count(int64_t n); // 16345177 -> 16,345,177
std::string format_bytes(uint64_t bytes); // 3.1 GiB
std::string format_rate(double per_second); // 31.2k
std::string format_duration(double seconds); // 45s, 12m05s, 1h12m, 3d04h
// The shortest text that reads back as the same number, as Python's repr writes
// it: 0.15, 8.0, 1e-08.
std::string format_exact(double value);
// At most `digits` significant digits, as printf's %g writes them.
std::string format_short(double value, int digits);

} // namespace deepspeed::base
