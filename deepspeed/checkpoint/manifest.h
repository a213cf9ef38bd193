// ds_manifest.json: which files make a checkpoint, with their hashes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepspeed/base/json.h"

namespace deepspeed::checkpoint {

struct FileRecord {
  std::string name; // a plain file name inside the tag's folder
  uint64_t size = 0;
  std::string hash; // XXH3-128 of all bytes, 32 hexadecimal digits
};

struct Manifest {
  std::string tag;
  std::string run_id;
  int stage = 0;
  int ranks = 1;
  std::string dtype; // "bfloat16"
  int64_t global_steps = 0;
  std::vector<FileRecord> files;
  // Whatever the engine wants to find again: position in the data, vocabulary
  // hash ... An object.
  base::Json extra = base::Json::object();
};

// A JSON text that carries its own hash.
std::string manifest_text(const Manifest& manifest);

// Error(data) with `source` as the place for anything but what manifest_text()
// writes: an unknown format version, a flipped bit, names with '/', duplicates.
Manifest parse_manifest(const std::string& text, const std::string& source);

inline constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;

} // namespace deepspeed::checkpoint
