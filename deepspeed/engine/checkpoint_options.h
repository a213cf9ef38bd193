// How an engine saves and loads its checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/flat/torch_headers.h"
#include "deepspeed/formats/value.h"

namespace deepspeed {

struct SaveOptions {
  std::string tag; // empty: "global_step<N>"
  formats::Value client_state = formats::make_dict();
  bool save_latest = true;
  int64_t keep_last = 0; // checkpoints that stay; 0: all
};

struct LoadOptions {
  std::string tag; // empty: the latest whole one, or the folder is a tag's
  // The checkpoint has every tensor of the module, and no other. Without, what
  // is on one side alone is named in a warning; new parameters keep their
  // values, and their optimizer states begin at zero.
  bool module_strict = true;
  // Buffers that the module computes in place of keeping them. A checkpoint may
  // hold them, with just these values.
  std::vector<std::pair<std::string, at::Tensor>> derived = {};
  bool optimizer_states = true;
  bool lr_scheduler_states = true;
  bool module_only = false;
};

struct LoadedCheckpoint {
  std::string path; // the folder of the tag
  // What save_checkpoint() was given. From Python, values of classes that are
  // not known here are left out, with a warning that names them.
  formats::Value client_state;
  // Without module_strict: names of the module that the checkpoint does not
  // have, and the reverse.
  std::vector<std::string> missing = {};
  std::vector<std::string> unexpected = {};
  int64_t ranks = 1; // that wrote it
  // Why it is not the one that `latest` names; empty if it is.
  std::vector<std::string> passed_over = {};
};

} // namespace deepspeed
