// A job on several hosts, by Slurm's srun.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/launcher/launch_options.h"
#include "deepspeed/launcher/node_job.h"

namespace deepspeed::launcher {

// The command that starts the job: srun's flags, then the program. `nodes` is
// what the hostfile and its filters leave, or empty without a hostfile; then
// --num_nodes and --num_gpus are passed on and Slurm decides on the rest.
// Error(usage) for what srun cannot express: some slots of a host, different
// numbers of slots.
std::vector<std::string> slurm_command(
    const LaunchOptions& options,
    const std::vector<Node>& nodes);

// Runs srun in the environment of `job` and passes signals on. Returns the exit
// code of the launcher.
int run_by_slurm(
    const LaunchOptions& options,
    const std::vector<Node>& nodes,
    NodeJob job);

} // namespace deepspeed::launcher
