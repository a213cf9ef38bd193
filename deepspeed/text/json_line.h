// One string out of a line of JSON, without building a tree.
#pragma once

#include <string>
#include <string_view>

namespace deepspeed::text {

// What is wrong with a line of JSON; all empty if nothing is.
struct JsonProblem {
  std::string what;
  std::string hint; // what to do about it
  bool is_syntax_error = false;

  explicit operator bool() const {
    return !what.empty();
  }
};

// Puts the string that the object `line` has under `column` into `text`. A
// problem: not an object, no such field, not a string, the field twice, nesting
// deeper than 64 levels, a syntax error. Values that nobody reads may be what
// Python's json.dumps writes beyond the standard: NaN, Infinity, numbers of any
// size, halves of surrogate pairs. Memory and time are linear in the size of
// the line.
JsonProblem read_json_line(
    std::string_view line,
    const std::string& column,
    std::string& text);

// Whether `line` is one JSON object, by the rules above.
bool is_json_object(std::string_view line);

} // namespace deepspeed::text
