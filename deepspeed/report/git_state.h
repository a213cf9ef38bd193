// What git says about the current folder.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace deepspeed::report {

// The standard output of `git ARGUMENTS`, run without a shell in the current
// folder; nothing if git is missing or fails. Output beyond 64 MiB is cut.
std::optional<std::string> git_output(
    const std::vector<std::string>& arguments);

} // namespace deepspeed::report
