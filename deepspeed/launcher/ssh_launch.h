// A job on several hosts, over ssh.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/launcher/node_job.h"
#include "deepspeed/launcher/output_relay.h"
#include "deepspeed/launcher/signal_source.h"

namespace deepspeed::launcher {

struct SshOptions {
  int port = 0; // 0: ssh's own choice
  std::vector<std::string> arguments; // more flags for ssh
  bool wait_for_hosts = false; // no limit of ten seconds
};

// Starts `deepspeed --node-agent` on each host, all at once, and waits until
// all are ready: Error(unavailable) with a table of the hosts that are not, and
// nothing is left running. Then each gets its part of `job`; job.environment
// holds what is sent along, and an empty job.master_addr becomes the address of
// the first host. Returns the exit code of the launcher.
int run_over_ssh(
    NodeJob job,
    const SshOptions& options,
    OutputRelay& relay,
    SignalSource& signals);

} // namespace deepspeed::launcher
