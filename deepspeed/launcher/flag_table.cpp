// The flags of `deepspeed`: names, help, and what they set.
#include "deepspeed/launcher/flag_table.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

namespace {

using base::Error;
using base::ExitCode;
using O = LaunchOptions;
using F = ResourceFilter;
using Text = const std::string&;

[[noreturn]] void refuse_value(Text flag, Text value, Text hint) {
  throw Error(
      ExitCode::usage, flag + " '" + value + "' is not supported", flag, hint);
}

Flag::Set text(std::string O::*field) {
  return [=](O& options, Text, Text value) { options.*field = value; };
}

Flag::Set text(std::string F::*field) {
  return [=](O& options, Text, Text value) { options.filter.*field = value; };
}

// An empty one, as from a variable of the shell that is not set, would start
// ranks elsewhere than was meant.
void set_hostfile(O& options, Text flag, Text value) {
  if (value.empty()) {
    refuse_value(flag, value, "leave it out to use this machine alone");
  }
  options.hostfile = value;
}

Flag::Set on(bool O::*field) {
  return [=](O& options, Text, Text) { options.*field = true; };
}

int parse_integer(Text flag, Text value, int lowest, int highest) {
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

Flag::Set integer(int O::*field, int lowest, int highest) {
  return [=](O& options, Text flag, Text value) {
    options.*field = parse_integer(flag, value, lowest, highest);
  };
}

// -1 means "not given", as in DeepSpeed.
Flag::Set count(int F::*field) {
  return [=](O& options, Text flag, Text value) {
    options.filter.*field = parse_integer(flag, value, -1, kMaxSlots);
  };
}

Flag::Set refused(Text reason) {
  return [=](O&, Text flag, Text) {
    throw Error(ExitCode::usage, flag + " is not supported", flag, reason);
  };
}

void set_backend(O& options, Text flag, Text value) {
  std::string name = value;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  if (name == "ssh" || name == "slurm") {
    options.backend = name == "ssh" ? Backend::ssh : Backend::slurm;
    return;
  }
  if (name == "pdsh") {
    refuse_value(
        flag,
        value,
        "hosts are started over ssh directly: leave --launcher out");
  }
  for (const char* mpi : {"openmpi", "mpich", "impi", "mvapich"}) {
    if (name == mpi) {
      refuse_value(
          flag,
          value,
          "start the program with mpirun itself, it reads MPI's environment: "
          "mpirun -n 4 PROGRAM");
    }
  }
  refuse_value(flag, value, "use ssh or slurm");
}

void set_log_level(O& options, Text flag, Text value) {
  const std::pair<const char*, LogLevel> levels[] = {
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
  refuse_value(flag, value, "use debug, info, warning or error");
}

void set_grace_period(O& options, Text flag, Text value) {
  constexpr double kDay = 86400;
  char* end = nullptr;
  const double seconds = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !std::isfinite(seconds) || seconds < 0 ||
      seconds > kDay) {
    throw Error(
        ExitCode::usage,
        flag + " takes seconds from 0 to 86400, not '" + value + "'",
        flag,
        "");
  }
  options.grace_period = seconds;
}

void set_rank_log_folder(O& options, Text, Text value) {
  options.rank_log_folder = value == "None" ? "" : value; // as DeepSpeed
}

void set_launcher_args(O& options, Text flag, Text value) {
  options.launcher_args = split_words(value, flag);
}

void set_quiet(O& options, Text, Text) {
  options.log_level = LogLevel::error;
}

FlagSection resource_flags() {
  return {
      "Which hosts and slots",
      {{{"-H", "--hostfile"},
        "FILE",
        "hosts, one a line: NAME slots=N (default /job/hostfile; without the "
        "file: this machine)",
        set_hostfile},
       {{"-i", "--include"},
        "NODES",
        "use these only: NODE[:SLOT,...][@NODE...], SLOT a number or 0-3",
        text(&F::include)},
       {{"-e", "--exclude"}, "NODES", "use all but these", text(&F::exclude)},
       {{"--num_nodes"}, "N", "use the first N hosts", count(&F::num_nodes)},
       {{"--num_gpus", "--num_accelerators"},
        "N",
        "N ranks on each host; without GPUs they share its cores",
        count(&F::num_gpus)}}};
}

FlagSection address_flags() {
  return {
      "How ranks find each other",
      {{{"--master_addr"},
        "ADDR",
        "address of the first host",
        text(&O::master_addr)},
       {{"--master_port"},
        "PORT",
        "port on the first host (default: a free one on one host, else 29500)",
        integer(&O::master_port, 1, 65535)}}};
}

FlagSection host_flags() {
  return {
      "Several hosts",
      {{{"--launcher"}, "NAME", "ssh (default) or slurm", set_backend},
       {{"--launcher_args"},
        "ARGS",
        "more arguments for ssh or srun",
        set_launcher_args},
       {{"--ssh_port"},
        "PORT",
        "port of the hosts' ssh servers",
        integer(&O::ssh_port, 1, 65535)},
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
        integer(&O::node_rank, 0, kMaxSlots)}}};
}

FlagSection rank_flags() {
  return {
      "How a rank is started",
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
        text(&O::bind_core_list)}}};
}

FlagSection watch_flags() {
  return {
      "Watching and stopping",
      {{{"--enable_each_rank_log"},
        "DIR",
        "output of each rank to a file DIR/TIME_rankN.log",
        set_rank_log_folder},
       {{"--grace_period"},
        "SECONDS",
        "from SIGTERM to SIGKILL (default 5 after a failure, 30 after a "
        "signal to the launcher)",
        set_grace_period},
       {{"--max_restarts"},
        "N",
        "start again after a failure, up to N times (default 0)",
        integer(&O::max_restarts, 0, 1000000)},
       {{"--save_pid"},
        "",
        "write the launcher's pid to /tmp/PID.deepspeed",
        on(&O::save_pid)},
       {{"--log_level"},
        "LEVEL",
        "debug, info (default), warning or error",
        set_log_level},
       {{"-q", "--quiet"}, "", "errors only", set_quiet},
       {{"-h", "--help"}, "", "print this", on(&O::help)},
       {{"--version"}, "", "print the version", on(&O::version)}}};
}

FlagSection refused_flags() {
  const Flag::Set elastic =
      refused("DeepSpeed removed it; --max_restarts starts a failed job again");
  return {
      "",
      {{{"--venv_script"},
        "FILE",
        "",
        refused("activate the environment before: PATH is passed on to all "
                "hosts")},
       {{"--autotuning"}, "MODE", "", refused("choose batch sizes by hand")},
       {{"--elastic_training"}, "", "", elastic},
       {{"--min_elastic_nodes"}, "N", "", elastic},
       {{"--max_elastic_nodes"}, "N", "", elastic}}};
}

} // namespace

std::vector<FlagSection> flag_table() {
  return {
      resource_flags(),
      address_flags(),
      host_flags(),
      rank_flags(),
      watch_flags(),
      refused_flags()};
}

} // namespace deepspeed::launcher
