// From the name of a script to the command that a rank runs.
#include "deepspeed/launcher/rank_program.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/child_process.h"

namespace deepspeed::launcher {

namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_executable(const fs::path& path) {
  return is_file(path) && ::access(path.c_str(), X_OK) == 0;
}

} // namespace

std::string find_in_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path candidate = fs::path(folder.empty() ? "." : folder) / name;
    if (is_executable(candidate)) {
      return candidate.string();
    }
  }
  return "";
}

namespace {

std::string find_python() {
  for (const char* name : {"python3", "python"}) {
    if (std::string path = find_in_path(name); !path.empty()) {
      return path;
    }
  }
  throw Error(
      ExitCode::no_input,
      "no python3 in PATH",
      "",
      "install Python, or put the folder of its virtual environment in PATH");
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (is_file(name)) {
      return name;
    }
    throw Error(ExitCode::no_input, "no such program: " + name, name, "");
  }
  if (is_file(name)) {
    return "./" + name;
  }
  const fs::path folder = fs::path(own_path()).parent_path();
  if (is_executable(folder / name)) {
    return (folder / name).string();
  }
  if (std::string path = find_in_path(name); !path.empty()) {
    return path;
  }
  throw Error(
      ExitCode::no_input,
      "no such program: " + name,
      "looked in the current folder, in " + folder.string() + " and in PATH",
      "");
}

} // namespace

std::vector<std::string> rank_command(
    const RankProgram& program,
    int local_rank) {
  std::vector<std::string> command;
  if (program.module) {
    command = {find_python(), "-u", "-m", program.script};
  } else {
    const std::string path = find_program(program.script);
    const bool python =
        !program.no_python && (path.ends_with(".py") || !is_executable(path));
    if (python) {
      command = {
          find_python(), "-u", is_file(program.script) ? program.script : path};
    } else {
      command = {path};
    }
  }
  if (program.local_rank) {
    command.push_back("--local_rank=" + std::to_string(local_rank));
  }
  command.insert(
      command.end(), program.arguments.begin(), program.arguments.end());
  return command;
}

} // namespace deepspeed::launcher
