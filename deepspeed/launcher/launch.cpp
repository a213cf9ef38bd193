// The program `deepspeed`.
#include "deepspeed/launcher/launch.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/shell_word.h"
#include "deepspeed/base/version.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/descriptor.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/random_name.h"
#include "deepspeed/launcher/child_process.h"
#include "deepspeed/launcher/hostfile.h"
#include "deepspeed/launcher/launch_options.h"
#include "deepspeed/launcher/leftovers.h"
#include "deepspeed/launcher/machine.h"
#include "deepspeed/launcher/node_agent.h"
#include "deepspeed/launcher/node_job.h"
#include "deepspeed/launcher/rank_environment.h"
#include "deepspeed/launcher/slurm_launch.h"
#include "deepspeed/launcher/ssh_launch.h"

namespace deepspeed::launcher {

namespace {

using base::Error;
using base::ExitCode;

constexpr int kDefaultPort = 29500; // DeepSpeed's
constexpr const char* kLoopback = "127.0.0.1";

// What is used, and where.
struct Resources {
  std::vector<Node> nodes;
  bool from_hostfile = false;
  std::vector<std::string> devices; // of CUDA_VISIBLE_DEVICES, if that counts
};

void warn(const LaunchOptions& options, const std::string& text) {
  if (options.log_level <= LogLevel::warning) {
    base::log_warning(text);
  }
}

// The devices of CUDA_VISIBLE_DEVICES, numbers or UUIDs, up to the first "-1",
// as CUDA reads it.
std::vector<std::string> visible_devices() {
  std::vector<std::string> devices;
  const char* text = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string device;
  for (const char* c = text == nullptr ? "" : text;; ++c) {
    if (*c != ',' && *c != '\0') {
      device += *c == ' ' ? "" : std::string(1, *c);
      continue;
    }
    if (device.empty() || device == "-1") {
      return devices;
    }
    devices.push_back(device);
    device.clear();
    if (*c == '\0') {
      return devices;
    }
  }
}

// Without a hostfile: the GPUs, or one slot for each NUMA node. A set
// CUDA_VISIBLE_DEVICES counts only without filters, as in DeepSpeed.
Resources local_resources(const LaunchOptions& options, Machine& machine) {
  Resources resources;
  Host host{.name = "localhost", .slots = machine.gpus};
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (machine.gpus > 0 && visible != nullptr) {
    if (options.filter.empty()) {
      resources.devices = visible_devices();
      host.slots = static_cast<int>(resources.devices.size());
      machine.gpus = host.slots; // none: the ranks run on the cores
    } else {
      warn(
          options,
          std::string("CUDA_VISIBLE_DEVICES=") + visible +
              " is not used: --include, --exclude, --num_nodes or --num_gpus "
              "says which devices to use");
    }
  }
  if (machine.gpus == 0) {
    host.any_slot = true;
    host.slots = static_cast<int>(machine.numa_nodes.size());
  }
  resources.nodes = filter_resources({host}, options.filter);
  return resources;
}

Resources find_resources(const LaunchOptions& options, Machine& machine) {
  constexpr uint64_t kMost = 16 << 20;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(options.hostfile, ignored)) {
    const auto hosts = parse_hostfile(
        file::read_file(options.hostfile, kMost), options.hostfile);
    return {
        .nodes = filter_resources(hosts, options.filter),
        .from_hostfile = true};
  }
  if (std::filesystem::exists(options.hostfile, ignored)) {
    throw Error(
        ExitCode::no_input,
        "the hostfile is not a regular file",
        options.hostfile,
        "write its lines to a file");
  }
  if (options.hostfile != LaunchOptions().hostfile &&
      !options.hostfile.empty()) {
    warn(
        options,
        "no hostfile " + options.hostfile + ": only this machine is used");
  }
  if (options.backend == Backend::slurm) {
    return {}; // Slurm knows them
  }
  return local_resources(options, machine);
}

NodeJob make_job(const LaunchOptions& options, const Resources& resources) {
  NodeJob job{
      .nodes = resources.nodes,
      .node_rank = std::max(0, options.node_rank),
      .master_addr = options.master_addr,
      .master_port = options.master_port};
  job.program = {
      .script = options.script,
      .arguments = options.arguments,
      .module = options.module,
      .no_python = options.no_python,
      .local_rank = !options.no_local_rank};
  job.environment = own_environment();
  set_variable(
      job.environment,
      "DS_LAUNCH_COMMAND",
      base::shell_word(program_invocation_name) + " " + options.command);
  job.devices = resources.devices;
  job.bind_cores = options.bind_cores;
  job.bind_core_list = options.bind_core_list;
  job.rank_log_folder = options.rank_log_folder;
  job.log_level = options.log_level;
  if (options.grace_period) {
    const std::chrono::duration<double> grace(*options.grace_period);
    job.supervisor = {.failure_grace = grace, .stop_grace = grace};
  }
  job.max_restarts = options.max_restarts;
  return job;
}

void add_environment_files(const LaunchOptions& options, NodeJob& job) {
  std::vector<std::string> warnings;
  for (const auto& [name, value] : read_environment_files(warnings)) {
    set_variable(job.environment, name, value);
  }
  for (const std::string& text : warnings) {
    warn(options, text);
  }
}

// /tmp/PID.deepspeed with the process id in it, as DeepSpeed writes it, while
// the launcher runs.
class PidFile {
 public:
  PidFile() : path_("/tmp/" + std::to_string(::getpid()) + ".deepspeed") {
    // One of a process that had this number and was killed: in containers
    // numbers come again and again.
    file::file_system().remove(path_);
    const file::Descriptor made(
        file::file_system().open(path_, O_WRONLY | O_CREAT | O_EXCL, 0644));
    if (!made.is_open() ||
        !file::write_all(made.get(), std::to_string(::getpid()))) {
      throw base::system_error(
          ExitCode::cannot_create, "cannot make the pid file", path_, errno);
    }
  }
  ~PidFile() {
    file::file_system().remove(path_);
  }
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;

 private:
  const std::string path_;
};

int run_on_this_host(
    const LaunchOptions& options,
    NodeJob job,
    const Machine& machine) {
  const bool alone = job.nodes.size() == 1;
  if (options.no_ssh && job.node_rank >= static_cast<int>(job.nodes.size())) {
    throw Error(
        ExitCode::usage,
        "--node_rank " + std::to_string(job.node_rank) + ", but there are " +
            std::to_string(job.nodes.size()) + " nodes",
        "--node_rank",
        "nodes count from 0 in the order of the hostfile");
  }
  if (job.master_addr.empty()) {
    if (!alone) {
      throw Error(
          ExitCode::usage,
          "--no_ssh with several nodes needs the address of the first",
          "--master_addr",
          "add --master_addr ADDRESS on each node");
    }
    job.master_addr = kLoopback;
  }
  if (job.master_port == 0 && job.master_addr != kLoopback) {
    job.master_port = kDefaultPort;
  }
  if (alone) {
    job.job_id = file::random_name(32);
  }
  job.on_terminal = true;
  SignalSource signals;
  OutputRelay relay;
  return run_node(job, machine, relay, signals);
}

// What other hosts get: the listed variables of ours, and all of the files.
std::vector<std::string> environment_for_hosts(const NodeJob& job) {
  const std::vector<std::string> own = own_environment();
  std::vector<std::string> sent;
  for (const std::string& entry : job.environment) {
    const bool from_file =
        std::find(own.begin(), own.end(), entry) == own.end();
    if (from_file || passed_to_hosts(entry.substr(0, entry.find('=')))) {
      sent.push_back(entry);
    }
  }
  const char* path = find_variable(sent, "PYTHONPATH");
  const std::string here = std::filesystem::current_path().string();
  set_variable(sent, "PYTHONPATH", path == nullptr ? here : here + ":" + path);
  return sent;
}

int run_on_hosts(const LaunchOptions& options, NodeJob job) {
  job.environment = environment_for_hosts(job);
  job.job_id = file::random_name(32);
  if (job.master_port == 0) {
    job.master_port = kDefaultPort;
  }
  const SshOptions ssh{
      .port = options.ssh_port,
      .arguments = options.launcher_args,
      .wait_for_hosts = options.no_ssh_check};
  SignalSource signals;
  OutputRelay relay;
  return run_over_ssh(std::move(job), ssh, relay, signals);
}

int run_slurm(
    const LaunchOptions& options,
    const Resources& resources,
    NodeJob job) {
  const std::vector<Node> nodes =
      resources.from_hostfile ? resources.nodes : std::vector<Node>();
  if (!options.master_addr.empty() || !nodes.empty()) {
    set_variable(
        job.environment,
        "MASTER_ADDR",
        options.master_addr.empty() ? nodes[0].host : options.master_addr);
    set_variable(
        job.environment,
        "MASTER_PORT",
        std::to_string(
            options.master_port == 0 ? kDefaultPort : options.master_port));
  }
  set_variable(job.environment, "DS_JOB_ID", file::random_name(32));
  return run_by_slurm(options, nodes, std::move(job));
}

bool is_this_host(const std::string& host, const Machine& machine) {
  const std::string shorter = machine.host.substr(0, machine.host.find('.'));
  return host == "localhost" || host == kLoopback || host == machine.host ||
      host == shorter;
}

int run_job(
    const LaunchOptions& options,
    const Resources& resources,
    const Machine& machine) {
  NodeJob job = make_job(options, resources);
  add_environment_files(options, job);
  if (options.backend == Backend::slurm) {
    return run_slurm(options, resources, std::move(job));
  }
  const bool several = job.nodes.size() > 1 || options.force_multi;
  if (several && !options.no_ssh) {
    return run_on_hosts(options, std::move(job));
  }
  if (!options.no_ssh && !is_this_host(job.nodes[0].host, machine)) {
    warn(
        options,
        "a single host runs here, on " + machine.host +
            "; --force_multi "
            "starts it on " +
            job.nodes[0].host + " over ssh");
  }
  return run_on_this_host(options, std::move(job), machine);
}

} // namespace

int launch(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == kAgentFlag) {
    return run_node_agent();
  }
  const LaunchOptions options = parse_launch_options({argv + 1, argv + argc});
  if (options.help || options.version) {
    const std::string text = options.help
        ? launch_help()
        : "deepspeed " + std::string(base::kVersion) + "\n";
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  Machine machine = this_machine();
  const Resources resources = find_resources(options, machine);
  std::optional<PidFile> pid_file;
  if (options.save_pid) {
    pid_file.emplace();
  }
  return run_job(options, resources, machine);
}

} // namespace deepspeed::launcher
