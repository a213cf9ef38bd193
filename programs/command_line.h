// The command line of the small programs.
#pragma once

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed {

// Parses the arguments and runs `program`, or prints --help. An argument that
// the program does not know is an Error(usage) with the nearest flag.
template <typename Program>
int run_with_arguments(CLI::App& app, int argc, char** argv, Program program) {
  app.allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::ParseError& error) {
    throw base::Error(base::ExitCode::usage, error.what(), "", "see --help");
  }
  const std::vector<std::string> unknown = app.remaining();
  if (!unknown.empty()) {
    std::vector<std::string> flags;
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) {
        flags.push_back("--" + name);
      }
    }
    const std::string flag = unknown[0].substr(0, unknown[0].find('='));
    const std::string nearest = base::nearest_name(flag, flags);
    throw base::Error(
        base::ExitCode::usage,
        "unknown argument " + flag,
        "",
        nearest.empty() ? "see --help" : "did you mean " + nearest + "?");
  }
  const int code = program();
  // A reader that has seen enough is no error; a full disk is.
  if (std::fflush(stdout) != 0 && errno != EPIPE) {
    throw base::system_error(
        base::ExitCode::io, "cannot write", "standard output", errno);
  }
  return code;
}

} // namespace deepspeed
