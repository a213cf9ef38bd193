// What the global names in a pickle may stand for.
#pragma once

#include <string_view>

namespace deepspeed::formats::pickle {

enum class NameKind {
  // Understood here: torch's tensors and storages, OrderedDict.
  structure,
  // Plain data of Python, numpy, torch and DeepSpeed: kept as inert records,
  // and written back as they were.
  plain,
  // builtins.getattr, by which protocol 2 names nested classes.
  accessor,
  // A class or function of somebody else: its name is all that is kept.
  unknown,
  // Runs programs, makes code, or is no name at all: the file is refused.
  forbidden,
};

// Of "module.name", as it stands in the file: "__builtin__.set" is the set of
// protocol 2. That the list of forbidden names has an end costs no safety: what
// is unknown is neither run nor written again.
NameKind kind_of_name(std::string_view name);

} // namespace deepspeed::formats::pickle
