// Publishing a checkpoint whose files several ranks write.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/checkpoint/commit.h"
#include "deepspeed/comm/process_group.h"

namespace deepspeed {

struct RankFile {
  std::string name; // in the tag's folder
  formats::Value value;
};

// The order of checkpoint/commit.h, on all ranks: `files` are those of this
// rank, `manifest` is complete but for the files. What fails on one rank throws
// a base::Error on all (comm/agree.h), and what was written is removed; so does
// a folder that not all ranks see (comm/shared_folder.h). A collective.
void publish_together(
    comm::ProcessGroup& ranks,
    checkpoint::CheckpointCommit& commit,
    const std::vector<RankFile>& files,
    checkpoint::Manifest manifest);

} // namespace deepspeed
