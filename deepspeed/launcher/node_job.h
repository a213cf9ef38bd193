// The ranks of one host: start, watch, stop, report, start again.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "deepspeed/launcher/launch_options.h"
#include "deepspeed/launcher/machine.h"
#include "deepspeed/launcher/output_relay.h"
#include "deepspeed/launcher/rank_program.h"
#include "deepspeed/launcher/resource_filter.h"
#include "deepspeed/launcher/signal_source.h"
#include "deepspeed/launcher/supervisor.h"

namespace deepspeed::launcher {

struct NodeJob {
  // All hosts of the job, and which of them this one is.
  std::vector<Node> nodes;
  int node_rank = 0;
  // For rank 0 to listen at. Port 0: a free one, on one host only.
  std::string master_addr = "127.0.0.1";
  int master_port = 0;

  RankProgram program;
  // What the ranks inherit, "NAME=value".
  std::vector<std::string> environment;
  // What CUDA_VISIBLE_DEVICES says instead of the slots' numbers.
  std::vector<std::string> devices;
  bool bind_cores = false;
  std::string bind_core_list;

  std::string rank_log_folder; // "": output is relayed
  LogLevel log_level = LogLevel::info;
  SupervisorOptions supervisor;
  int max_restarts = 0;
  int restart_count = 0; // starts of the whole job before this one
  std::string resume_note; // what an earlier start left in DS_RESUME_FILE
  std::string job_id; // DS_JOB_ID, the same on all hosts; "": not known
  bool on_terminal = false; // rank 0 may use the terminal of this process
  // Takes a message to the first launcher (node_message.h); not set where this
  // is the first one.
  std::function<void(const std::string& message)> tell_home = nullptr;
};

// Runs the ranks of job.nodes[job.node_rank] to their end and reports a
// failure on standard error. Nothing that a rank has started is left running.
// Returns the exit code of the launcher. Error if they cannot be started.
int run_node(
    const NodeJob& job,
    const Machine& machine,
    OutputRelay& relay,
    SignalSource& signals);

// Writes the rest of the output; a second stop signal gives it up.
void flush_output(OutputRelay& relay, SignalSource& signals);

// Exit codes of mistakes that another start cannot mend.
bool worth_restarting(int exit_code);

} // namespace deepspeed::launcher
