// Between JSON and the values of torch files.
#pragma once

#include "deepspeed/base/json.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::formats {

// What Python's json.load() gives for it.
Value value_of_json(const base::Json& json);

// What Python's json.dump() would write: tuples become arrays, integer keys
// strings. std::invalid_argument for tensors, objects, other keys, and integers
// that no 64 bits hold.
base::Json json_of_value(const Value& value);

} // namespace deepspeed::formats
