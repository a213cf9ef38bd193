// The command line of `deepspeed`: flags, then a program and its arguments.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "deepspeed/launcher/resource_filter.h"

namespace deepspeed::launcher {

// What the launcher itself prints on standard error.
enum class LogLevel { debug, info, warning, error };

// How hosts are reached when there are several.
enum class Backend { ssh, slurm };

struct LaunchOptions {
  // Which hosts and slots.
  std::string hostfile = "/job/hostfile"; // DeepSpeed's default
  ResourceFilter filter;

  // How the ranks find each other. "" and 0: chosen.
  std::string master_addr;
  int master_port = 0;

  // Several hosts.
  int node_rank = -1;
  bool no_ssh = false;
  bool no_ssh_check = false;
  bool force_multi = false;
  int ssh_port = 0; // 0: what ssh's own configuration says
  Backend backend = Backend::ssh;
  std::vector<std::string> launcher_args;

  // How a rank is started.
  bool module = false;
  bool no_python = false;
  bool no_local_rank = false;
  bool bind_cores = false;
  std::string bind_core_list;

  // Watching and stopping.
  std::string rank_log_folder; // "": output goes to the launcher's
  bool save_pid = false;
  int max_restarts = 0;
  std::optional<double> grace_period; // seconds
  LogLevel log_level = LogLevel::info;

  // "-H hosts train_bert_ds": all up to the program, for a shell.
  std::string command;
  std::string script;
  std::vector<std::string> arguments;

  bool help = false; // nothing else counts
  bool version = false;
};

// `arguments` without the program's name. '-' and '_' are the same in a flag.
// Everything after the script belongs to the script. Error(usage) for unknown
// flags (with the nearest name), bad values, flags that exclude each other, and
// DeepSpeed's flags that are not supported, with the reason.
LaunchOptions parse_launch_options(const std::vector<std::string>& arguments);

std::string launch_help();

// Splits like a shell does at blanks, with '...', "..." and backslash, but
// nothing is expanded. Error(usage) for an open quote.
std::vector<std::string> split_words(
    const std::string& text,
    const std::string& where);

} // namespace deepspeed::launcher
