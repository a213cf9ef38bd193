// A tree as JSON, for tests and for looking into files.
#pragma once

#include "deepspeed/base/json.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::formats {

// Plain values as they are; the rest as objects with a "kind". A tensor shows
// its shape, its place in its storage, and the CRC-32 of its elements in
// row-major order (gathered into memory, one tensor at a time).
base::Json dump(const Value& value);

} // namespace deepspeed::formats
