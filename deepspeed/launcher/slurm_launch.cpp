// A job on several hosts, by Slurm's srun.
#include "deepspeed/launcher/slurm_launch.h"

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/child_process.h"
#include "deepspeed/launcher/output_relay.h"
#include "deepspeed/launcher/rank_program.h"
#include "deepspeed/launcher/signal_source.h"
#include "deepspeed/launcher/supervisor.h"

namespace deepspeed::launcher {

namespace {

using base::Error;
using base::ExitCode;

[[noreturn]] void refuse(const std::string& what, const std::string& hint) {
  throw Error(ExitCode::usage, what, "--launcher slurm", hint);
}

void add_hosts(
    const std::vector<Node>& nodes,
    std::vector<std::string>& command) {
  const size_t slots = nodes.front().slots.size();
  std::string names;
  for (const Node& node : nodes) {
    if (node.slots.size() != slots) {
      refuse(
          "hosts with different numbers of slots",
          "srun needs the same on each: " + nodes.front().host + " has " +
              std::to_string(slots) + ", " + node.host + " has " +
              std::to_string(node.slots.size()));
    }
    if (node.slots.back() != static_cast<int>(slots) - 1) {
      refuse(
          "slots of " + node.host + " cannot be chosen",
          "name whole hosts in --include, or use --num_gpus");
    }
    names += (names.empty() ? "" : ",") + node.host;
  }
  command.insert(
      command.end(),
      {"--nodelist=" + names,
       "--nodes=" + std::to_string(nodes.size()),
       "--ntasks=" + std::to_string(nodes.size() * slots),
       "--ntasks-per-node=" + std::to_string(slots)});
}

void add_counts(
    const ResourceFilter& filter,
    std::vector<std::string>& command) {
  if (!filter.include.empty() || !filter.exclude.empty()) {
    refuse(
        "--include and --exclude need a hostfile",
        "add --hostfile, or give srun's own flags in --launcher_args");
  }
  if (filter.num_nodes > 0) {
    command.push_back("--nodes=" + std::to_string(filter.num_nodes));
  }
  if (filter.num_gpus > 0) {
    command.push_back("--ntasks-per-node=" + std::to_string(filter.num_gpus));
  }
}

void check(const LaunchOptions& options) {
  const std::pair<bool, const char*> flags[] = {
      {options.no_ssh, "--no_ssh"},
      {options.bind_cores, "--bind_cores_to_rank"},
      {!options.rank_log_folder.empty(), "--enable_each_rank_log"},
      {options.max_restarts > 0, "--max_restarts"},
      {options.ssh_port != 0, "--ssh_port"}};
  for (const auto& [given, name] : flags) {
    if (given) {
      refuse(
          std::string(name) + " does not go with --launcher slurm",
          "srun starts the ranks: give it flags of its own in --launcher_args");
    }
  }
}

} // namespace

std::vector<std::string> slurm_command(
    const LaunchOptions& options,
    const std::vector<Node>& nodes) {
  check(options);
  const std::string srun = find_in_path("srun");
  if (srun.empty()) {
    throw Error(
        ExitCode::unavailable,
        "no srun in PATH",
        "--launcher slurm",
        "this is not a machine with Slurm: leave --launcher out");
  }
  std::vector<std::string> command{
      srun,
      "--kill-on-bad-exit=1",
      "--disable-status"}; // a SIGINT goes to the ranks at once
  if (nodes.empty()) {
    add_counts(options.filter, command);
  } else {
    add_hosts(nodes, command);
  }
  command.insert(
      command.end(),
      options.launcher_args.begin(),
      options.launcher_args.end());
  // The rank of a process is known only where srun starts it.
  const std::vector<std::string> program = rank_command(
      {.script = options.script,
       .arguments = options.arguments,
       .module = options.module,
       .no_python = options.no_python,
       .local_rank = false},
      0);
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

int run_by_slurm(
    const LaunchOptions& options,
    const std::vector<Node>& nodes,
    NodeJob job) {
  const std::vector<std::string> command = slurm_command(options, nodes);
  SignalSource signals;
  OutputRelay relay;
  std::vector<Child> children;
  children.push_back(
      {.title = "srun",
       .host = "",
       .tail = std::make_shared<LineTail>(),
       .srun = true});
  // srun keeps lines whole (--unbuffered is not given) and writes to our own
  // streams.
  children[0].pid = start_child(
      {.argv = command,
       .environment = job.environment,
       .death_signal = SIGTERM}); // then it kills the ranks
  const Outcome outcome =
      Supervisor(children, relay, signals, job.supervisor).run();
  if (outcome.failed >= 0) {
    relay.write_line("error: srun " + describe_end(children[0]));
  }
  flush_output(relay, signals);
  return outcome.exit_code;
}

} // namespace deepspeed::launcher
