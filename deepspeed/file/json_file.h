// JSON files.
#pragma once

#include <cstdint>
#include <string>

#include "deepspeed/base/json.h"

namespace deepspeed::file {

// Reads and parses a file of at most `max_bytes`; errors are those of
// read_file() and base::parse_json().
base::Json read_json(
    const std::string& path,
    uint64_t max_bytes,
    const base::JsonOptions& options = {});

} // namespace deepspeed::file
