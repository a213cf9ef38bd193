// The environment of a rank.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deepspeed/launcher/resource_filter.h"

namespace deepspeed::launcher {

// Where a rank stands, in its job and on its host.
struct RankPlace {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0; // 0, 1, ... on each host, also if hosts differ in slots
  int local_size = 1;
  int node_rank = 0;
  int node_count = 1;
};

// The places of the ranks of nodes[node_rank]: ranks count through the nodes in
// their order.
std::vector<RankPlace> rank_places(
    const std::vector<Node>& nodes,
    int node_rank);

// Sets what DeepSpeed's launcher sets (MASTER_ADDR, MASTER_PORT, RANK,
// WORLD_SIZE, LOCAL_RANK, LOCAL_SIZE, CROSS_RANK, CROSS_SIZE) and torchrun's
// LOCAL_WORLD_SIZE.
void set_place(
    std::vector<std::string>& environment,
    const RankPlace& place,
    const std::string& master_addr,
    int master_port);

using Variables = std::vector<std::pair<std::string, std::string>>;

// NAME=VALUE lines. Blank lines and lines that start with '#' are skipped,
// "export " in front is allowed, a value may stand in '...' or "...", and a
// comment (blank, '#') may follow; nothing is expanded. A byte-order mark is
// skipped. Error(data) with path:line for anything else, as for an open quote.
Variables parse_environment_file(
    std::string_view text,
    const std::string& path);

// Of the file named by DS_ENV_FILE (.deepspeed_env) in the home folder, then in
// the current folder, which wins. One found in the current folder is reported
// in `warnings`: it may have come with somebody's repository. Error(data).
Variables read_environment_files(std::vector<std::string>& warnings);

// Whether a variable is passed on to other hosts: the list of
// docs/launcher.md, with no name of a token or a password on it.
bool passed_to_hosts(std::string_view name);

} // namespace deepspeed::launcher
