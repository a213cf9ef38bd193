// The JSON header of a safetensors file, read in one pass.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deepspeed/formats/dtype.h"

namespace deepspeed::formats {

struct SafetensorsHeader {
  struct Entry {
    std::string name;
    DType dtype = DType::float32;
    std::vector<int64_t> sizes;
    uint64_t begin = 0; // bytes behind the header
    uint64_t end = 0;
  };
  std::vector<Entry> entries; // in the order of the header
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Parses the header's text. No document tree is built: time and memory are
// proportional to the text. Error(data), with `source` as the place, for what
// is not strict JSON of exactly this form, repeats a key, names an unknown
// dtype, or has a shape that does not take the bytes it claims.
SafetensorsHeader parse_safetensors_header(
    std::string_view text,
    const std::string& source);

} // namespace deepspeed::formats
