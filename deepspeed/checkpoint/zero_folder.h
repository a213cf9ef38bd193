// The folder of a checkpoint: which tags it has, and which files a tag has.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/base/mapped_file.h"
#include "deepspeed/checkpoint/manifest.h"
#include "deepspeed/checkpoint/value.h"

namespace deepspeed::checkpoint {

// The tag in FOLDER/latest. Nothing if there is no such file; Error(data) if it
// holds anything but one tag (white space around it is let pass). Files over
// 256 bytes are not read.
std::optional<std::string> read_latest(const std::string& folder);

// Tags with a model_states file, the newest first: by global_steps, then by the
// time of the file. Those whose step cannot be read come last.
std::vector<std::string> list_tags(const std::string& folder);

// Whether FOLDER/TAG is a folder.
bool has_tag(const std::string& folder, const std::string& tag);

// A file of a tag, read into a tree whose tensors view `mapping`.
struct ZeroTagFile {
  std::string path;
  std::shared_ptr<const base::MappedFile> mapping;
  Value value;
};

struct ZeroTag {
  std::string path; // FOLDER/TAG
  std::optional<Manifest> manifest;
  base::Json manifest_json; // the whole text, null without a manifest
  ZeroTagFile model;
  std::vector<ZeroTagFile> shards; // by rank, 0 on; empty for stage 0
};

// Maps and checks the files of a tag. With a manifest: that all its files are
// there with their sizes and, if `verify`, hashes, and no other shard. Without:
// that shards are numbered 0, 1 ..., and, if `verify`, the CRC-32 of all
// entries. Error(data) as ZeroCheckpoint::open() says, Error(config) for kinds
// that are not read.
ZeroTag open_tag(
    const std::string& folder,
    const std::string& tag,
    bool verify);

} // namespace deepspeed::checkpoint
