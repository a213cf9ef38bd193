// Python's pickle format, protocol 2, as far as torch.save uses it.
// Opcodes: Python's pickletools.py.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepspeed/formats/value.h"

namespace deepspeed::formats {

// Gives the storage of a key such as "0"; called once for each key.
using StorageSource =
    std::function<std::shared_ptr<const Storage>(const std::string& key)>;

// Reads a pickle without running any of it. torch's tensors and OrderedDict
// become values, plain data of Python, numpy and torch inert Objects, and of
// what has another class the name stays (Object::Call::unknown). Opcodes beyond
// a fixed set, and names that run programs or make code, are Error(data) with
// `source` and the byte as the place: "not allowed: posix.system".
//
// Memory is bounded by a multiple of the pickle's size, whatever it says: memo
// indices must be dense, a list that is shared a billion times is refused, and
// so are self-references and nesting beyond kMaxValueDepth. Every tensor lies
// within its storage, and every storage has the size the pickle names.
Value read_pickle(
    std::span<const std::byte> bytes,
    const StorageSource& storages,
    const std::string& source);

struct Pickle {
  std::string bytes;
  // Storage i has the key "i".
  std::vector<std::shared_ptr<const Storage>> storages;
};

// Writes the opcodes that Python's own pickler emits for such a tree, so that
// torch.load(weights_only=True) accepts it if there is no record of a class
// that this knows not. std::invalid_argument for a tensor that is no view of
// its storage, for an object of an unknown class, and for a tree deeper than
// kMaxValueDepth.
Pickle write_pickle(const Value& value);

} // namespace deepspeed::formats
