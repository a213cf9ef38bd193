// libFuzzer target: the small files of a checkpoint folder, ds_manifest.json
// and latest, and the names of the files in it.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/manifest.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/file/temporary_folder.h"

namespace {

using namespace deepspeed;
using namespace deepspeed::checkpoint;

// What was accepted names files of the folder only, and comes back the same.
void check_manifest(const std::string& text) {
  const Manifest manifest = parse_manifest(text, "fuzz");
  for (const FileRecord& file : manifest.files) {
    if (file.name.find('/') != std::string::npos || file.name == "..") {
      std::abort();
    }
  }
  const std::string again = manifest_text(manifest);
  if (manifest_text(parse_manifest(again, "again")) != again) {
    std::abort();
  }
}

void check_latest(const std::string& text) {
  static const file::TemporaryFolder folder;
  std::ofstream(folder.path() + "/latest", std::ios::binary) << text;
  const auto tag = read_latest(folder.path());
  if (!tag || !is_tag(*tag) || text.size() > 256) {
    std::abort();
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    check_manifest(text);
  } catch (const base::Error&) {
  }
  try {
    check_latest(text);
  } catch (const base::Error&) {
  }
  const ZeroFile file = parse_zero_file_name(text);
  if (file.kind == ZeroFile::Kind::shard_states && file.rank < 0) {
    std::abort();
  }
  return 0;
}
