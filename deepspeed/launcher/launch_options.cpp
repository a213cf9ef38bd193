// The command line of `deepspeed`: flags, then a program and its arguments.
#include "deepspeed/launcher/launch_options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

using base::Error;
using base::ExitCode;

namespace {

// `value` is the name of the flag's value in --help, "" for a flag without
// one. A flag without help is refused or an internal one.
struct Flag {
  std::vector<std::string> names;
  std::string value;
  std::string help;
  std::function<void(LaunchOptions&, const std::string&)> set;
};

// A section of --help.
struct FlagSection {
  std::string title;
  std::vector<Flag> flags;
};

using Set = std::function<void(LaunchOptions&, const std::string&)>;

Set text(std::string LaunchOptions::*field) {
  return [=](LaunchOptions& o, const std::string& v) { o.*field = v; };
}

Set filter_text(std::string ResourceFilter::*field) {
  return [=](LaunchOptions& o, const std::string& v) { o.filter.*field = v; };
}

Set on(bool LaunchOptions::*field) {
  return [=](LaunchOptions& o, const std::string&) { o.*field = true; };
}

int parse_integer(
    const std::string& flag,
    const std::string& value,
    int lowest,
    int highest) {
  int number = 0;
  const char* end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end || number < lowest ||
      number > highest) {
    throw Error(
        ExitCode::usage,
        flag + " takes a number from " + std::to_string(lowest) + " to " +
            std::to_string(highest) + ", not '" + value + "'",
        flag,
        "");
  }
  return number;
}

Set integer(
    int LaunchOptions::*field,
    const std::string& flag,
    int lowest,
    int highest) {
  return [=](LaunchOptions& o, const std::string& v) {
    o.*field = parse_integer(flag, v, lowest, highest);
  };
}

// -1 means "not given", as in DeepSpeed.
Set count(int ResourceFilter::*field, const std::string& flag) {
  return [=](LaunchOptions& o, const std::string& v) {
    o.filter.*field = parse_integer(flag, v, -1, kMaxSlots);
  };
}

Set refused(const std::string& flag, const std::string& reason) {
  return [=](LaunchOptions&, const std::string&) {
    throw Error(ExitCode::usage, flag + " is not supported", flag, reason);
  };
}

void set_backend(LaunchOptions& options, const std::string& value) {
  std::string name = value;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  if (name == "ssh" || name == "slurm") {
    options.backend = name == "ssh" ? Backend::ssh : Backend::slurm;
    return;
  }
  std::string hint = "use ssh or slurm";
  if (name == "pdsh") {
    hint = "hosts are started over ssh directly: leave --launcher out";
  } else if (
      name == "openmpi" || name == "mpich" || name == "impi" ||
      name == "mvapich") {
    hint =
        "start the program with mpirun itself, it reads MPI's environment: "
        "mpirun -n 4 PROGRAM";
  }
  throw Error(
      ExitCode::usage,
      "--launcher " + value + " is not supported",
      "--launcher",
      hint);
}

void set_log_level(LaunchOptions& options, const std::string& value) {
  const std::vector<std::pair<std::string, LogLevel>> levels{
      {"debug", LogLevel::debug},
      {"info", LogLevel::info},
      {"warning", LogLevel::warning},
      {"error", LogLevel::error},
      {"critical", LogLevel::error}};
  for (const auto& [name, level] : levels) {
    if (name == value) {
      options.log_level = level;
      return;
    }
  }
  throw Error(
      ExitCode::usage,
      "--log_level " + value + " is not a level",
      "--log_level",
      "use debug, info, warning or error");
}

void set_grace_period(LaunchOptions& options, const std::string& value) {
  char* end = nullptr;
  const double seconds = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !std::isfinite(seconds) || seconds < 0 ||
      seconds > 86400) {
    throw Error(
        ExitCode::usage,
        "--grace_period takes seconds from 0 to 86400, not '" + value + "'",
        "--grace_period",
        "");
  }
  options.grace_period = seconds;
}

std::vector<FlagSection> flag_table() {
  using O = LaunchOptions;
  using F = ResourceFilter;
  const std::string elastic =
      "DeepSpeed removed it; --max_restarts starts a failed job again";
  return {
      {"Which hosts and slots",
       {{{"-H", "--hostfile"},
         "FILE",
         "hosts, one a line: NAME slots=N (default /job/hostfile; without the "
         "file: this machine)",
         text(&O::hostfile)},
        {{"-i", "--include"},
         "NODES",
         "use these only: NODE[:SLOT,...][@NODE...], SLOT a number or 0-3",
         filter_text(&F::include)},
        {{"-e", "--exclude"},
         "NODES",
         "use all but these",
         filter_text(&F::exclude)},
        {{"--num_nodes"},
         "N",
         "use the first N hosts",
         count(&F::num_nodes, "--num_nodes")},
        {{"--num_gpus", "--num_accelerators"},
         "N",
         "N ranks on each host; without GPUs they share its cores",
         count(&F::num_gpus, "--num_gpus")}}},
      {"How ranks find each other",
       {{{"--master_addr"},
         "ADDR",
         "address of the first host",
         text(&O::master_addr)},
        {{"--master_port"},
         "PORT",
         "port on the first host (default: a free one on one host, else 29500)",
         integer(&O::master_port, "--master_port", 1, 65535)}}},
      {"Several hosts",
       {{{"--launcher"}, "NAME", "ssh (default) or slurm", set_backend},
        {{"--launcher_args"},
         "ARGS",
         "more arguments for ssh or srun",
         [](O& o, const std::string& v) {
           o.launcher_args = split_words(v, "--launcher_args");
         }},
        {{"--ssh_port"},
         "PORT",
         "port of the hosts' ssh servers",
         integer(&O::ssh_port, "--ssh_port", 1, 65535)},
        {{"--no_ssh_check"},
         "",
         "wait for slow hosts, not only 10 seconds",
         on(&O::no_ssh_check)},
        {{"--force_multi"},
         "",
         "use ssh for a single host, too",
         on(&O::force_multi)},
        {{"--no_ssh"},
         "",
         "start this node only; run it on each by hand",
         on(&O::no_ssh)},
        {{"--node_rank"},
         "N",
         "which node this is, with --no_ssh",
         integer(&O::node_rank, "--node_rank", 0, kMaxSlots)}}},
      {"How a rank is started",
       {{{"--module"}, "", "run the script as python3 -m does", on(&O::module)},
        {{"--no_python"},
         "",
         "run it directly, whatever its name",
         on(&O::no_python)},
        {{"--no_local_rank"},
         "",
         "do not add the argument --local_rank=N",
         on(&O::no_local_rank)},
        {{"--bind_cores_to_rank"},
         "",
         "give each rank cores of its own",
         on(&O::bind_cores)},
        {{"--bind_core_list"},
         "LIST",
         "the cores to bind to, like 1,3-5",
         text(&O::bind_core_list)}}},
      {"Watching and stopping",
       {{{"--enable_each_rank_log"},
         "DIR",
         "output of each rank to a file DIR/TIME_rankN.log",
         [](O& o, const std::string& v) {
           o.rank_log_folder = v == "None" ? "" : v;
         }},
        {{"--grace_period"},
         "SECONDS",
         "from SIGTERM to SIGKILL (default 5 after a failure, 30 after a "
         "signal to the launcher)",
         set_grace_period},
        {{"--max_restarts"},
         "N",
         "start again after a failure, up to N times (default 0)",
         integer(&O::max_restarts, "--max_restarts", 0, 1000000)},
        {{"--save_pid"},
         "",
         "write the launcher's pid to /tmp/PID.deepspeed",
         on(&O::save_pid)},
        {{"--log_level"},
         "LEVEL",
         "debug, info (default), warning or error",
         set_log_level},
        {{"-q", "--quiet"},
         "",
         "errors only",
         [](O& o, const std::string&) { o.log_level = LogLevel::error; }},
        {{"-h", "--help"}, "", "print this", on(&O::help)},
        {{"--version"}, "", "print the version", on(&O::version)}}},
      {"",
       {{{"--venv_script"},
         "FILE",
         "",
         refused(
             "--venv_script",
             "activate the environment before: PATH is passed on to all "
             "hosts")},
        {{"--autotuning"},
         "MODE",
         "",
         refused("--autotuning", "choose batch sizes by hand")},
        {{"--elastic_training"},
         "",
         "",
         refused("--elastic_training", elastic)},
        {{"--min_elastic_nodes"},
         "N",
         "",
         refused("--min_elastic_nodes", elastic)},
        {{"--max_elastic_nodes"},
         "N",
         "",
         refused("--max_elastic_nodes", elastic)}}}};
}

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
  const Flag& flag = find_flag(table, normal_flag(name));
  if (flag.value.empty()) {
    if (value) {
      throw Error(ExitCode::usage, name + " takes no value", argument, "");
    }
    flag.set(options, "");
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
  flag.set(options, *value);
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
