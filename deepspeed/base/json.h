// JSON as people write it in configuration files, read strictly.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace deepspeed::base {

using Json = nlohmann::ordered_json;

struct JsonOptions {
  bool comments = true; // // and /* */
  bool trailing_commas = false; // [1, 2,] as in HJSON
  int max_depth = 64;
};

// Parses one JSON document. Error(data) with "SOURCE:LINE:COLUMN" for a syntax
// error, a number that a double cannot hold, a duplicate key (nlohmann would
// silently keep one of them), invalid UTF-8, or nesting beyond max_depth.
// `source` is the name shown in messages.
Json parse_json(
    std::string_view text,
    const std::string& source,
    const JsonOptions& options = {});

} // namespace deepspeed::base
