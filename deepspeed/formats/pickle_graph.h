// What a pickle builds, before it is known to be a tree of sane size.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/formats/value.h"

namespace deepspeed::formats::pickle {

using NodeId = uint32_t;
inline constexpr NodeId kNoNode = UINT32_MAX;

// A node refers to others by number, as often as it likes and even in circles:
// a hostile graph costs no more than its pickle and is freed without recursion.
struct Node {
  enum class Kind : uint8_t {
    none,
    boolean, // number
    integer, // number
    big_integer, // text: little-endian two's complement
    real, // number holds its bits
    string, // text
    list, // items
    tuple, // items
    dict, // items: key, value, key, value, ...
    ordered_dict, // the same; state: its attributes
    global, // text: "module.name"; number: NameKind
    storage, // number: which one
    tensor, // number: which one
    // text, arguments, state; items: appended, or key, value, ...; number:
    // Object::Call, and kMapping where the items are pairs
    object,
  };
  Kind kind = Kind::none;
  NodeId arguments = kNoNode; // a tuple
  NodeId state = kNoNode;
  int64_t number = 0;
  std::string_view text; // lies in the pickle or in Graph::names
  std::vector<NodeId> items;
};

inline constexpr int64_t kMapping = 16;
inline constexpr int64_t kCallMask = kMapping - 1;

struct Graph {
  std::vector<Node> nodes;
  std::deque<std::string> names; // of globals
  std::vector<std::shared_ptr<const Tensor>> tensors;
};

// Turns what hangs on `root` into a tree. On failure returns false and says why
// in `fault`: a cycle, nesting beyond kMaxValueDepth, a key that is no key or
// stands twice, or a tree that is very much larger than the pickle of
// `pickle_bytes` bytes.
bool flatten(
    const Graph& graph,
    NodeId root,
    size_t pickle_bytes,
    Value* value,
    std::string* fault);

} // namespace deepspeed::formats::pickle
