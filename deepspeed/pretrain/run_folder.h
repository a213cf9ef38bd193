// Which experiment a run belongs to: a new one, or one that it goes on with.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepspeed/checkpoint/checkpoint_path.h"
#include "deepspeed/settings/options.h"

namespace deepspeed::pretrain {

struct RunFolder {
  // DIR/NAME, which is made if it is not there. Empty: nothing is written.
  std::string path;
  // The experiment is there: its folder is gone on with.
  bool exists = false;
  // What is loaded; without kinds there is no checkpoint yet, and the run
  // begins at step 0.
  checkpoint::CheckpointPath from;
  // For restarts of this job: files and what they shall hold. Rank 0's alone.
  std::vector<std::pair<std::string, std::string>> notes;

  bool loads() const {
    return exists && !from.kinds.empty();
  }
};

// What the folder flags and the environment mean. Looks only, and says in a
// line what it goes on with where no flag names it. In this order:
//
//   --load_checkpoint_dir PATH     that checkpoint, or the newest of PATH; the
//                                  newest, too, when a restart finds newer ones
//                                  than the one that was named
//   --checkpoint_dir DIR --experiment NAME
//                                  DIR/NAME, whether it is there or not
//   a restart (DS_RESTART_COUNT, TORCHELASTIC_RESTART_COUNT,
//   SLURM_RESTART_COUNT over 0)    the folder that an earlier start of the same
//                                  job with the same settings has noted
//   --checkpoint_dir DIR           a new name in DIR
//
// Error(no_input) for a path that is not there or has no checkpoint,
// Error(config) for checkpoints of the other program. Rank 0 alone.
RunFolder find_run_folder(const settings::Options& options);

// Notes the folder for restarts of this job, before it is made: in the file of
// DS_RESUME_FILE, and for torchrun and Slurm in a file .restart-* beside it,
// whose name is a hash of job and settings. Error(cannot_create), Error(io).
void write_notes(const RunFolder& folder);

// A RunFolder as a text, and back: rank 0's for the others.
std::string to_text(const RunFolder& folder);
RunFolder run_folder_of(const std::string& text);

} // namespace deepspeed::pretrain
