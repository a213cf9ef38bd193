// The launcher on another host, started by the first one over ssh.
#pragma once

namespace deepspeed::launcher {

// The argument that makes `deepspeed` an agent.
inline constexpr const char* kAgentFlag = "--node-agent";

// Says that it is ready, reads a NodeMessage from standard input, then runs
// that node. What follows on standard input are letters for signals; its end
// means that the first launcher is gone. Returns the exit code.
int run_node_agent();

} // namespace deepspeed::launcher
