// The command line of `deepspeed`: flags, then a program and its arguments.
#include "deepspeed/launcher/launch_options.h"

#include <algorithm>

#include "deepspeed/base/error.h"
#include "deepspeed/base/shell_word.h"
#include "deepspeed/launcher/flag_table.h"

namespace deepspeed::launcher {

using base::Error;
using base::ExitCode;

namespace {

// "--no-ssh" -> "--no_ssh".
std::string normal_flag(const std::string& name) {
  std::string normal = name;
  const size_t start = std::min<size_t>(2, normal.size());
  std::replace(
      normal.begin() + static_cast<std::ptrdiff_t>(start),
      normal.end(),
      '-',
      '_');
  return normal;
}

const Flag& find_flag(
    const std::vector<FlagSection>& table,
    const std::string& name) {
  std::vector<std::string> known;
  for (const FlagSection& section : table) {
    for (const Flag& flag : section.flags) {
      for (const std::string& other : flag.names) {
        if (other == name) {
          return flag;
        }
        known.push_back(other);
      }
    }
  }
  const std::string nearest = base::nearest_name(name, known);
  throw Error(
      ExitCode::usage,
      "unknown flag " + name,
      "",
      nearest.empty() ? "flags of your program stand behind its name; see "
                        "deepspeed --help"
                      : "did you mean " + nearest + "?");
}

// Sets the flag that stands at `position`; returns the position behind it.
size_t parse_flag(
    const std::vector<FlagSection>& table,
    const std::vector<std::string>& arguments,
    size_t position,
    LaunchOptions& options) {
  const std::string& argument = arguments[position];
  const bool is_short = argument[1] != '-';
  const size_t equals = argument.find('=');
  std::optional<std::string> value;
  std::string name = argument.substr(0, equals);
  if (is_short && argument.size() > 2) {
    name = argument.substr(0, 2);
    value = argument.substr(equals == 2 ? 3 : 2);
  } else if (equals != std::string::npos) {
    value = argument.substr(equals + 1);
  }
  name = normal_flag(name);
  const Flag& flag = find_flag(table, name);
  if (flag.value.empty()) {
    if (value) {
      throw Error(ExitCode::usage, name + " takes no value", argument, "");
    }
    flag.set(options, name, "");
    return position + 1;
  }
  if (!value) {
    if (++position == arguments.size()) {
      throw Error(
          ExitCode::usage,
          name + " needs a value",
          "",
          "write " + name + " " + flag.value);
    }
    value = arguments[position];
  }
  flag.set(options, name, *value);
  return position + 1;
}

void check_options(const LaunchOptions& options) {
  const auto require =
      [](bool good, const std::string& what, const std::string& hint) {
        if (!good) {
          throw Error(ExitCode::usage, what, "", hint);
        }
      };
  require(
      !options.script.empty(),
      "no program to start",
      "deepspeed [flags] PROGRAM [arguments]; see deepspeed --help");
  require(
      !(options.module && options.no_python),
      "--module and --no_python do not go together",
      "a module needs Python: leave --no_python out");
  require(
      options.bind_core_list.empty() || options.bind_cores,
      "--bind_core_list without --bind_cores_to_rank",
      "add --bind_cores_to_rank");
  require(
      !options.no_ssh || options.node_rank >= 0,
      "--no_ssh needs the number of this node",
      "add --node_rank N, from 0 on");
  require(
      options.node_rank < 0 || options.no_ssh,
      "--node_rank is for --no_ssh",
      "leave it out: nodes are numbered by the hostfile");
  require(
      !(options.no_ssh && options.force_multi),
      "--no_ssh and --force_multi do not go together",
      "");
  require(
      !(options.no_ssh && options.max_restarts > 0),
      "--max_restarts does not go with --no_ssh",
      "nodes that are started by hand must be started again by hand");
}

} // namespace

LaunchOptions parse_launch_options(const std::vector<std::string>& arguments) {
  const std::vector<FlagSection> table = flag_table();
  LaunchOptions options;
  size_t position = 0;
  while (position < arguments.size() && arguments[position].size() > 1 &&
         arguments[position][0] == '-') {
    if (arguments[position] == "--") {
      ++position;
      break;
    }
    position = parse_flag(table, arguments, position, options);
    if (options.help || options.version) {
      return options;
    }
  }
  if (position < arguments.size()) {
    options.script = arguments[position];
    for (size_t i = 0; i <= position; ++i) {
      options.command += (i == 0 ? "" : " ") + base::shell_word(arguments[i]);
    }
    options.arguments.assign(
        arguments.begin() + static_cast<std::ptrdiff_t>(position) + 1,
        arguments.end());
  }
  check_options(options);
  return options;
}

std::string launch_help() {
  std::string help =
      "usage: deepspeed [flags] PROGRAM [arguments of the program]\n\n"
      "Starts PROGRAM once for each slot (a GPU, or a share of the cores) and\n"
      "watches it: a failure of one rank stops all. A native program is\n"
      "looked up as a path, beside deepspeed and in PATH; a .py file is run\n"
      "by python3.\n";
  for (const FlagSection& section : flag_table()) {
    if (section.title.empty()) {
      continue;
    }
    help += "\n" + section.title + "\n";
    for (const Flag& flag : section.flags) {
      std::string left = " ";
      for (const std::string& name : flag.names) {
        left += " " + name;
      }
      left += flag.value.empty() ? "" : " " + flag.value;
      left.resize(std::max<size_t>(left.size() + 1, 34), ' ');
      help += left + flag.help + "\n";
    }
  }
  return help +
      "\nThe exit code is that of the first rank that failed, 128 + signal if "
      "a signal\nended it, 75 if all ranks stopped and saved.\n";
}

std::vector<std::string> split_words(
    const std::string& text,
    const std::string& where) {
  std::vector<std::string> words;
  bool in_word = false;
  char quote = '\0';
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == '\0' && (c == ' ' || c == '\t' || c == '\n')) {
      in_word = false;
      continue;
    }
    if (!in_word) {
      words.emplace_back();
      in_word = true;
    }
    if (quote != '\0' && c == quote) {
      quote = '\0';
    } else if (quote == '\0' && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      words.back() += text[++i];
    } else {
      words.back() += c;
    }
  }
  if (quote != '\0') {
    throw Error(
        ExitCode::usage,
        std::string("a quote ") + quote + " is not closed in: " + text,
        where,
        "");
  }
  return words;
}

} // namespace deepspeed::launcher
