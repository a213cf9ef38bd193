// One string out of a line of JSON, without building a tree.
#pragma once

#include <string>
#include <string_view>

namespace deepspeed::text {

// Puts the string that the object `line` has under `column` into `text`.
// Returns "" or what is wrong: not an object, no such field, not a string, the
// field twice, nesting deeper than 64 levels, a syntax error. Memory and time
// are linear in the size of the line.
std::string read_json_line(
    std::string_view line,
    const std::string& column,
    std::string& text);

} // namespace deepspeed::text
