// Publishing a checkpoint of several ranks: readers find the old one or the
// whole new one after a kill or a power cut at any point, never a mix.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "deepspeed/checkpoint/manifest.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::checkpoint {

struct CommitOptions {
  std::string folder; // holds `latest` and one folder for each tag
  std::string tag;
  std::string run_id; // is_run_id(): the same on all ranks, new for every save
  bool write_latest = true;
  int64_t keep_last = 0; // committed tags that stay; 0: all
  // For tests: called before each durable step of publish() with its name.
  std::function<void(const char* step)> before_step = {};
};

// Each rank makes one; the folder must be one that all ranks see. The caller
// carries the results between ranks (engine/publish.h), in this order:
//   rank 0           begin(sum of the estimates of all ranks)
//   -- all ranks learn whether that failed --
//   each rank        add(...) for each of its files
//   -- rank 0 gathers the records, or learns that a rank failed --
//   rank 0           publish(manifest with all records), or abandon()
//   -- all ranks learn whether that failed --
// Until publish() nothing changes that a reader looks at. Not thread-safe.
class CheckpointCommit {
 public:
  // Does nothing yet. Error(usage) for a tag that is not
  // [A-Za-z0-9][A-Za-z0-9._-]{0,127}.
  explicit CheckpointCommit(CommitOptions options);

  const std::string& folder() const {
    return options_.folder;
  }
  // FOLDER/.tmp-TAG-RUNID
  const std::string& temporary_folder() const {
    return temporary_;
  }

  // Makes the folders. Error(cannot_create), or Error(io) with needed and free
  // bytes if less than 1.1 times `bytes` are free.
  void begin(uint64_t bytes);

  // Writes a file of torch.save, syncs it, and returns its size and hash, which
  // is computed on the way. Error(io), Error(cannot_create).
  FileRecord add(const std::string& name, const formats::Value& value);
  // The same with the bytes of a text.
  FileRecord add_text(const std::string& name, const std::string& text);

  // Writes the manifest, renames the folder to its tag (replacing a checkpoint
  // of that tag), points `latest` at it, writes zero_to_fp32.py beside it for
  // stages 1 and up, and removes tags older than this one beyond the newest
  // keep_last that publish() made; those of Python, newer ones and renamed ones
  // stay. Returns one line for each tag that was removed, or could not be.
  // Error(io): nothing is published, or everything but `latest` is: either is
  // safe to load from.
  std::vector<std::string> publish(const Manifest& manifest);

  // Removes the temporary folder, as far as it can.
  void abandon() noexcept;

 private:
  void step(const char* name) const;
  void replace_tag() const;
  std::vector<std::string> rotate() const;

  CommitOptions options_;
  std::string temporary_;
};

// Removes the folders that killed runs left: see is_unfinished_name(). Only
// while no other process writes to the folder (hold its lock).
void sweep_unfinished(const std::string& folder);

} // namespace deepspeed::checkpoint
