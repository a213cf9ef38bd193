// The version of this library.
#pragma once

namespace deepspeed::base {

// The same number as `project(... VERSION)` of the top CMakeLists.txt.
inline constexpr const char* kVersion = "0.1.0";

} // namespace deepspeed::base
