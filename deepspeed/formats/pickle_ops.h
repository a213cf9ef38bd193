// The pickle opcodes, and the names that tensors are made of.
#pragma once

#include <cstdint>
#include <string_view>

namespace deepspeed::formats::pickle {

enum class Op : uint8_t {
  proto = 0x80,
  stop = '.',
  mark = '(',
  global = 'c',
  reduce = 'R',
  build = 'b',
  newobj = 0x81,
  binpersid = 'Q',
  binput = 'q',
  long_binput = 'r',
  binget = 'h',
  long_binget = 'j',
  none = 'N',
  newtrue = 0x88,
  newfalse = 0x89,
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  long1 = 0x8a,
  long4 = 0x8b,
  binfloat = 'G',
  binunicode = 'X',
  empty_list = ']',
  append = 'a',
  appends = 'e',
  empty_tuple = ')',
  tuple = 't',
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  empty_dict = '}',
  setitem = 's',
  setitems = 'u',
};

inline constexpr uint8_t kProtocol = 2;
// Python's pickler closes a list or a dict after so many items.
inline constexpr size_t kBatch = 1000;

inline constexpr std::string_view kOrderedDict = "collections.OrderedDict";
inline constexpr std::string_view kRebuildTensor =
    "torch._utils._rebuild_tensor_v2";
// Of dtypes that have no class of storages.
inline constexpr std::string_view kRebuildTypedTensor =
    "torch._utils._rebuild_tensor_v3";
inline constexpr std::string_view kRebuildParameter =
    "torch._utils._rebuild_parameter";
inline constexpr std::string_view kUntypedStorage =
    "torch.storage.UntypedStorage";

} // namespace deepspeed::formats::pickle
