// From the name of a script to the command that a rank runs.
#pragma once

#include <string>
#include <vector>

namespace deepspeed::launcher {

struct RankProgram {
  std::string script;
  std::vector<std::string> arguments;
  bool module = false; // python3 -m SCRIPT
  bool no_python = false; // run it directly, whatever its name
  bool local_rank = true; // add --local_rank=N in front of the arguments
};

// The command of the rank with this number on its host. A path, or a name in
// the current folder, in the folder of the launcher and in PATH, in this order.
// An executable file is run directly; a .py file, a module and a text file that
// is not executable by python3. Error(no_input) if there is no such file.
std::vector<std::string> rank_command(
    const RankProgram& program,
    int local_rank);

// The first executable file of this name in the folders of PATH, or "".
std::string find_in_path(const std::string& name);

} // namespace deepspeed::launcher
