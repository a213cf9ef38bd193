// What a pickle builds, before it is known to be a tree of sane size.
#include "deepspeed/formats/pickle_graph.h"

#include <bit>
#include <unordered_set>

#include "deepspeed/formats/pickle_names.h"
#include "deepspeed/formats/pickle_ops.h"

namespace deepspeed::formats::pickle {
namespace {

// Sharing is normal (a key stands in several dicts), but only to a degree.
constexpr size_t kValuesPerByte = 2;
constexpr size_t kTextPerByte = 8;
constexpr size_t kFree = 4096;

class Flattener {
 public:
  Flattener(const Graph& graph, size_t pickle_bytes)
      : graph_(graph),
        values_left_(kFree + kValuesPerByte * pickle_bytes),
        text_left_(kFree + kTextPerByte * pickle_bytes),
        open_(graph.nodes.size()) {}

  bool run(NodeId id, int depth, Value* out) {
    if (depth > kMaxValueDepth) {
      return fail(
          "nested more than " + std::to_string(kMaxValueDepth) + " deep");
    }
    if (values_left_-- == 0) {
      return fail("the tree is very much larger than its pickle");
    }
    const Node& node = graph_.nodes[id];
    if (open_[id]) {
      return fail("a container that holds itself");
    }
    open_[id] = true;
    const bool fine = convert(node, depth, out);
    open_[id] = false;
    return fine;
  }

  const std::string& fault() const {
    return fault_;
  }

 private:
  bool fail(std::string why) {
    fault_ = std::move(why);
    return false;
  }

  bool convert(const Node& node, int depth, Value* out) {
    switch (node.kind) {
      case Node::Kind::none:
        *out = Value();
        return true;
      case Node::Kind::boolean:
        *out = Value(node.number != 0);
        return true;
      case Node::Kind::integer:
        *out = Value(node.number);
        return true;
      case Node::Kind::big_integer:
        return convert_big_integer(node, out);
      case Node::Kind::real:
        *out = Value(std::bit_cast<double>(node.number));
        return true;
      case Node::Kind::string:
        return convert_string(node, out);
      case Node::Kind::list:
      case Node::Kind::tuple:
        return convert_items(node, depth, out);
      case Node::Kind::dict:
      case Node::Kind::ordered_dict:
        return convert_dict(node, depth, out);
      case Node::Kind::global:
      case Node::Kind::object:
        return convert_object(node, depth, out);
      case Node::Kind::tensor:
        *out = Value(
            Value::Data(graph_.tensors[static_cast<size_t>(node.number)]));
        return true;
      case Node::Kind::storage:
        *out =
            Value(Object{std::string(kUntypedStorage), Object::Call::unknown});
        return true;
    }
    return fail("a value of an unknown kind");
  }

  bool convert_big_integer(const Node& node, Value* out) {
    if (!take_text(node.text.size())) {
      return false;
    }
    *out = Value(BigInteger{std::string(node.text)});
    return true;
  }

  bool take_text(size_t bytes) {
    if (bytes > text_left_) {
      return fail("the strings are very much larger than their pickle");
    }
    text_left_ -= bytes;
    return true;
  }

  bool convert_string(const Node& node, Value* out) {
    if (!take_text(node.text.size())) {
      return false;
    }
    *out = Value(std::string(node.text));
    return true;
  }

  bool convert_items(const Node& node, int depth, Value* out) {
    List items;
    for (const NodeId item : node.items) {
      if (!run(item, depth + 1, &items.emplace_back())) {
        return false;
      }
    }
    *out = node.kind == Node::Kind::list ? Value(std::move(items))
                                         : Value(Tuple{std::move(items)});
    return true;
  }

  bool convert_dict(const Node& node, int depth, Value* out) {
    Dict dict;
    dict.ordered = node.kind == Node::Kind::ordered_dict;
    if (!convert_entries(node, depth, &dict.entries)) {
      return false;
    }
    if (node.state != kNoNode) {
      Value attributes;
      if (!run(node.state, depth + 1, &attributes)) {
        return false;
      }
      dict.attributes = std::make_shared<const Value>(std::move(attributes));
    }
    *out = Value(std::move(dict));
    return true;
  }

  bool convert_entries(
      const Node& node,
      int depth,
      std::vector<DictEntry>* out) {
    std::unordered_set<std::string> seen;
    for (size_t i = 0; i + 1 < node.items.size(); i += 2) {
      DictEntry& entry = out->emplace_back();
      if (!run(node.items[i], depth + 1, &entry.key) ||
          !run(node.items[i + 1], depth + 1, &entry.value)) {
        return false;
      }
      if (!unknown_in(entry.key).empty()) {
        continue; // nobody can say whether it stands twice
      }
      std::string text = key_text(entry.key);
      if (text.empty()) {
        return fail(describe(entry.key) + " cannot be a dict's key");
      }
      if (!seen.insert(std::move(text)).second) {
        return fail("a dict has the key " + describe(entry.key) + " twice");
      }
    }
    return true;
  }

  bool convert_object(const Node& node, int depth, Value* out) {
    Object object;
    object.name = std::string(node.text);
    if (!take_text(node.text.size())) {
      return false;
    }
    if (node.kind == Node::Kind::global) {
      const NameKind kind = static_cast<NameKind>(node.number);
      if (kind == NameKind::accessor) {
        return fail("not allowed: " + object.name);
      }
      if (kind == NameKind::unknown) {
        object.call = Object::Call::unknown;
      }
    } else {
      object.call = static_cast<Object::Call>(node.number & kCallMask);
    }
    if (node.kind == Node::Kind::object &&
        object.call != Object::Call::unknown) {
      Value arguments;
      if (!run(node.arguments, depth + 1, &arguments)) {
        return false;
      }
      object.arguments = arguments.get_if<Tuple>()->items;
      if (node.state != kNoNode && !run(node.state, depth + 1, &object.state)) {
        return false;
      }
      if (!convert_contents(node, depth, &object)) {
        return false;
      }
    }
    *out = Value(std::move(object));
    return true;
  }

  // What was appended to the object, or set in it.
  bool convert_contents(const Node& node, int depth, Object* object) {
    if ((node.number & kMapping) != 0) {
      return convert_entries(node, depth, &object->entries);
    }
    for (const NodeId item : node.items) {
      if (!run(item, depth + 1, &object->items.emplace_back())) {
        return false;
      }
    }
    return true;
  }

  const Graph& graph_;
  size_t values_left_;
  size_t text_left_;
  std::vector<bool> open_; // being converted, from the root down
  std::string fault_;
};

} // namespace

bool flatten(
    const Graph& graph,
    NodeId root,
    size_t pickle_bytes,
    Value* value,
    std::string* fault) {
  Flattener flattener(graph, pickle_bytes);
  const bool fine = flattener.run(root, 0, value);
  *fault = flattener.fault();
  return fine;
}

} // namespace deepspeed::formats::pickle
