// Code point ranges of the character classes, ascending and disjoint.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepspeed::text {

struct CodePointRange {
  uint32_t first;
  uint32_t last; // inclusive
};

extern const CodePointRange kLetterRanges[]; // \p{L}
extern const size_t kLetterRangesSize;
extern const CodePointRange kNumberRanges[]; // \p{N}
extern const size_t kNumberRangesSize;
extern const CodePointRange kSpaceRanges[]; // \s
extern const size_t kSpaceRangesSize;

} // namespace deepspeed::text
