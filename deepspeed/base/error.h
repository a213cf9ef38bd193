// Errors a user can act on: what happened, where, and what to do about it.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace deepspeed::base {

// Exit codes of every program, from sysexits.h.
enum class ExitCode : int {
  ok = 0,
  usage = 64, // wrong flags
  data = 65, // a file is damaged or of the wrong kind
  no_input = 66, // a file is missing or cannot be read
  unavailable = 69, // a host or a port is not there
  internal = 70, // our own fault
  cannot_create = 73, // a folder or a lock cannot be made
  io = 74, // writing failed, the disk is full
  stopped = 75, // stopped early, but saved: start it again to go on
  config = 78, // settings that do not go together
};

// Thrown for mistakes and misfortunes of the outside world, never for a bug.
class Error : public std::runtime_error {
 public:
  // what: one line, with the offending value. where: a file, a line, a flag.
  // hint: what to type or change. `where` and `hint` may be empty.
  Error(ExitCode code, std::string what, std::string where, std::string hint);

  ExitCode code() const {
    return code_;
  }
  const std::string& where() const {
    return where_;
  }
  const std::string& hint() const {
    return hint_;
  }
  // "error: WHAT\n  WHERE\n  hint: HINT\n", without the lines that are empty.
  std::string report() const;

 private:
  ExitCode code_;
  std::string where_;
  std::string hint_;
};

// An Error of a failed system call: the text of `saved_errno`, and for a full
// disk the hint to make room. `action` reads like "cannot write".
Error system_error(
    ExitCode code,
    std::string_view action,
    std::string_view path,
    int saved_errno);

// Runs a program: reports an Error (or any other exception, as an internal one)
// on standard error and returns the exit code. With DS_DEBUG=1 other exceptions
// are let through, so that a debugger sees them.
int run_program(const std::function<int()>& program);

// The candidate that is the fewest edits away from `name`, or "" if none is
// close enough to be what the user meant.
std::string nearest_name(
    std::string_view name,
    const std::vector<std::string>& candidates);

} // namespace deepspeed::base
