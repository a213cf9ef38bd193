// The folder of a checkpoint: which tags it has, and which files a tag has.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/checkpoint/manifest.h"
#include "deepspeed/file/mapped_file.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::checkpoint {

// The tag in FOLDER/latest. Nothing if there is no such file; Error(data) if it
// holds anything but one tag (white space around it is let pass). Files over
// 256 bytes are not read.
std::optional<std::string> read_latest(const std::string& folder);

// Tags with a model_states file, the newest first: by global_steps, then by the
// time of the file. Those whose step cannot be read come last.
std::vector<std::string> list_tags(const std::string& folder);

// global_steps in the model file of FOLDER/TAG; -1 if it cannot be read. Its
// checksums are not compared.
int64_t steps_of_tag(const std::string& path);

// The manifest of FOLDER/TAG if its files are there with the sizes that it
// tells: then publish() made them. Nothing otherwise.
std::optional<Manifest> committed_manifest(const std::string& path);

// Whether FOLDER/TAG is a folder.
bool has_tag(const std::string& folder, const std::string& tag);

// A file of a tag, read into a tree whose tensors view `mapping`.
struct ZeroTagFile {
  std::string path;
  std::shared_ptr<const file::MappedFile> mapping;
  formats::Value value;
};

struct ZeroTag {
  std::string path; // FOLDER/TAG
  base::Json manifest; // null without one that speaks for these files
  ZeroTagFile model;
  std::vector<ZeroTagFile> shards; // by rank, 0 on; empty for stage 0
};

// Maps and checks the files of FOLDER/TAG. A manifest speaks for them if they
// have the sizes and, if `verify`, the hashes that it tells, and there is no
// other shard: Python leaves ours beside its own files. Otherwise the files
// speak for themselves: shards are numbered 0, 1 ..., and, if `verify`, the
// CRC-32 of all entries are right. `passed_over` tells, also when this throws,
// why a manifest that is there does not speak for them; else it stays empty.
// Error(data) as ZeroCheckpoint::open() says, Error(config) for kinds that are
// not read.
ZeroTag open_tag(
    const std::string& path,
    bool verify,
    std::string* passed_over);

} // namespace deepspeed::checkpoint
