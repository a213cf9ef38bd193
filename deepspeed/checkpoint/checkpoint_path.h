// What a path that is given to a program as a checkpoint is: the same for all
// programs, so that none takes another one than was meant.
#pragma once

#include <string>
#include <vector>

namespace deepspeed::checkpoint {

// Who wrote it, and so what its files are.
enum class CheckpointKind {
  steps, // train_bert, train_bert.py: FOLDER/checkpoint.iter_N.pt
  tags, // the engine, DeepSpeed: FOLDER/TAG/, named in FOLDER/latest
};

// "train_bert", "train_bert_ds"
const char* program_of(CheckpointKind kind);

struct CheckpointPath {
  // The experiment: holds hparams.json, `latest` and all checkpoints.
  std::string folder;
  // The file or tag in it that was meant; empty: the newest one.
  std::string name;
  // What the folder holds, or what `name` is.
  std::vector<CheckpointKind> kinds;

  bool is_named() const {
    return !name.empty();
  }
  bool has(CheckpointKind kind) const;
  // FOLDER/NAME, or FOLDER.
  std::string text() const;
};

// Of an experiment's folder, a tag's folder, a file in a tag's folder, or the
// file of a step, whatever its name. Links are followed; a link to a tag or a
// file belongs to the experiment that it lies in, or else to that of its
// target. A folder that holds no checkpoint is an experiment without kinds.
// Looks at names alone. Error(no_input) if there is nothing of this name.
CheckpointPath find_checkpoint(const std::string& path);

// The one kind of the path. Error(no_input) without a checkpoint, Error(config)
// if the folder holds both kinds: then one is to be named.
CheckpointKind only_kind(const CheckpointPath& path);

// Error(config) if the path holds checkpoints of the other kind, and none of
// this one.
void require_kind(const CheckpointPath& path, CheckpointKind kind);

// Moves the checkpoints of the kind that are newer than `name`, with which a
// run goes on, and one that `latest` names in vain, to FOLDER/set_aside/, and
// makes `latest` name `name`: what was left behind can neither be taken for the
// newest one, nor be counted or replaced by what the run saves. Returns one
// line for each. Error(io), Error(cannot_create). Only with the folder's lock.
std::vector<std::string> set_newer_aside(
    const std::string& folder,
    CheckpointKind kind,
    const std::string& name);

} // namespace deepspeed::checkpoint
