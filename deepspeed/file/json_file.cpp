// Implementation of json_file.h.
#include "deepspeed/file/json_file.h"

#include "deepspeed/file/atomic_file.h"

namespace deepspeed::file {

base::Json read_json(
    const std::string& path,
    uint64_t max_bytes,
    const base::JsonOptions& options) {
  return base::parse_json(read_file(path, max_bytes), path, options);
}

} // namespace deepspeed::file
