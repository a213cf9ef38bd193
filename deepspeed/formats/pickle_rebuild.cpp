// What the names in a pickle stand for: tensors, OrderedDicts, inert records.
#include "deepspeed/formats/pickle_rebuild.h"

#include <algorithm>

#include "deepspeed/formats/pickle_names.h"
#include "deepspeed/formats/pickle_ops.h"

namespace deepspeed::formats::pickle {
namespace {

// Arguments can be shared through the memo, so the sizes of a tensor may cost
// the file less than they cost us: few dimensions keep that in bounds.
constexpr size_t kMaxDimensions = 25;

constexpr std::string_view kTorch = "torch.";

// "torch.FloatStorage" -> float32; bytes for the class that has no dtype.
std::optional<DType> dtype_of_class(std::string_view name) {
  if (name == kUntypedStorage) {
    return DType::uint8;
  }
  return name.starts_with(kTorch)
      ? dtype_of_storage_class(name.substr(kTorch.size()))
      : std::nullopt;
}

// "torch.float8_e5m2" -> float8_e5m2.
std::optional<DType> dtype_of_global(std::string_view name) {
  return name.starts_with(kTorch) ? dtype_of_name(name.substr(kTorch.size()))
                                  : std::nullopt;
}

bool is_storage_key(std::string_view key) {
  return !key.empty() && key.size() <= 20 &&
      key.find_first_not_of("0123456789") == std::string_view::npos;
}

Rebuilder::Result fault(std::string why) {
  return {{}, std::move(why)};
}

// Stands for a thing whose class nobody here knows.
Rebuilder::Result unknown(std::string_view name) {
  Rebuilder::Result result;
  result.node.kind = Node::Kind::object;
  result.node.text = name;
  result.node.number = static_cast<int64_t>(Object::Call::unknown);
  return result;
}

bool is_unknown(const Node& node) {
  return (node.kind == Node::Kind::object &&
          (node.number & kCallMask) ==
              static_cast<int64_t>(Object::Call::unknown)) ||
      (node.kind == Node::Kind::global &&
       node.number == static_cast<int64_t>(NameKind::unknown));
}

} // namespace

Rebuilder::Result Rebuilder::storage(NodeId id) {
  const Node& tuple = node(id);
  if (tuple.kind != Node::Kind::tuple || tuple.items.size() != 5 ||
      node(tuple.items[0]).kind != Node::Kind::string ||
      node(tuple.items[0]).text != "storage" ||
      node(tuple.items[1]).kind != Node::Kind::global ||
      node(tuple.items[2]).kind != Node::Kind::string ||
      node(tuple.items[3]).kind != Node::Kind::string ||
      node(tuple.items[4]).kind != Node::Kind::integer) {
    return fault("a persistent id that names no storage");
  }
  const std::optional<DType> dtype = dtype_of_class(node(tuple.items[1]).text);
  const std::string key(node(tuple.items[2]).text.substr(0, 100));
  const int64_t numel = node(tuple.items[4]).number;
  if (!dtype && is_unknown(node(tuple.items[1]))) {
    return unknown(node(tuple.items[1]).text); // quantized
  }
  if (!dtype) {
    return fault(
        std::string(node(tuple.items[1]).text) + " is no kind of storage");
  }
  if (!is_storage_key(key)) {
    return fault("'" + key + "' is no storage key");
  }
  const auto [entry, is_new] = by_key_.try_emplace(key);
  if (is_new) {
    entry->second = source_(key);
  }
  const std::optional<uint64_t> size =
      checked_byte_size(std::span(&numel, 1), *dtype);
  if (!size || *size != entry->second->bytes.size()) {
    return fault(
        "storage " + key + " of " + std::to_string(numel) + " " +
        std::string(dtype_name(*dtype)) + " has " +
        std::to_string(entry->second->bytes.size()) + " bytes in the file");
  }
  storages_.push_back({*dtype, entry->second});
  Result result;
  result.node.kind = Node::Kind::storage;
  result.node.number = static_cast<int64_t>(storages_.size()) - 1;
  return result;
}

Rebuilder::Result Rebuilder::call(
    Object::Call how,
    NodeId callee,
    NodeId arguments) {
  const Node& function = node(callee);
  const Node& tuple = node(arguments);
  if (tuple.kind == Node::Kind::tuple && is_unknown(function)) {
    return unknown(function.text);
  }
  if (function.kind != Node::Kind::global || tuple.kind != Node::Kind::tuple) {
    return fault("a call of what is no function");
  }
  const std::string_view name = function.text;
  switch (static_cast<NameKind>(function.number)) {
    case NameKind::plain:
      return record(how, name, arguments);
    case NameKind::accessor:
      // The class in a class.
      return tuple.items.size() == 2 &&
              node(tuple.items[0]).kind == Node::Kind::global &&
              node(tuple.items[1]).kind == Node::Kind::string
          ? unknown(node(tuple.items[0]).text)
          : fault("not allowed: a call of " + std::string(name));
    default:
      break;
  }
  if (how == Object::Call::function) {
    if (name == kRebuildTensor || name == kRebuildTypedTensor) {
      return tensor(tuple.items, name == kRebuildTypedTensor);
    }
    if (name == kRebuildParameter) {
      return parameter(tuple.items);
    }
    if (name == kOrderedDict && tuple.items.empty()) {
      Result result;
      result.node.kind = Node::Kind::ordered_dict;
      return result;
    }
  }
  return fault("not allowed: a call of " + std::string(name));
}

Rebuilder::Result Rebuilder::record(
    Object::Call how,
    std::string_view name,
    NodeId arguments) const {
  const std::vector<NodeId>& items = node(arguments).items;
  // Python calls these two with nothing else; the one could look for a codec of
  // any name, the other make a class.
  const bool wrong =
      (name == "_codecs.encode" &&
       (items.size() != 2 || node(items[0]).kind != Node::Kind::string ||
        node(items[1]).kind != Node::Kind::string ||
        node(items[1]).text != "latin1")) ||
      (name.ends_with(".type") &&
       (items.size() != 1 || node(items[0]).kind != Node::Kind::none));
  if (wrong) {
    return fault("not allowed: a call of " + std::string(name));
  }
  Result result;
  result.node.kind = Node::Kind::object;
  result.node.text = name;
  result.node.arguments = arguments;
  result.node.number = static_cast<int64_t>(how);
  return result;
}

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad,
//                    backward_hooks, metadata=None)
// _rebuild_tensor_v3(..., backward_hooks, dtype, metadata=None)
Rebuilder::Result Rebuilder::tensor(
    const std::vector<NodeId>& arguments,
    bool typed) {
  const size_t least = typed ? 7 : 6;
  if (!arguments.empty() && is_unknown(node(arguments[0]))) {
    return unknown(node(arguments[0]).text);
  }
  if ((arguments.size() != least && arguments.size() != least + 1) ||
      node(arguments[0]).kind != Node::Kind::storage ||
      node(arguments[1]).kind != Node::Kind::integer ||
      node(arguments[4]).kind != Node::Kind::boolean ||
      !is_empty_dict(arguments[5])) {
    return fault("a tensor with unknown arguments");
  }
  // Metadata would be flags such as "conjugated": ours are plain tensors.
  if (arguments.size() == least + 1 &&
      node(arguments[least]).kind != Node::Kind::none &&
      !is_empty_dict(arguments[least])) {
    return unknown("torch.Tensor with metadata");
  }
  const TypedStorage& storage =
      storages_[static_cast<size_t>(node(arguments[0]).number)];
  Tensor tensor;
  tensor.dtype = storage.dtype;
  tensor.storage = storage.storage;
  if (typed) {
    const Node& global = node(arguments[6]);
    if (global.kind != Node::Kind::global) {
      return fault("a tensor with unknown arguments");
    }
    const std::optional<DType> dtype = dtype_of_global(global.text);
    if (!dtype) {
      return unknown(global.text);
    }
    tensor.dtype = *dtype;
  }
  tensor.storage_offset = node(arguments[1]).number;
  tensor.requires_grad = node(arguments[4]).number != 0;
  if (!read_sizes(arguments[2], &tensor.sizes) ||
      !read_sizes(arguments[3], &tensor.strides)) {
    return fault("a tensor with unknown sizes");
  }
  std::string why = tensor_fault(tensor);
  return why.empty() ? add_tensor(std::move(tensor)) : fault(std::move(why));
}

// _rebuild_parameter(data, requires_grad, backward_hooks)
Rebuilder::Result Rebuilder::parameter(const std::vector<NodeId>& arguments) {
  if (!arguments.empty() && is_unknown(node(arguments[0]))) {
    return unknown(node(arguments[0]).text);
  }
  if (arguments.size() != 3 || node(arguments[0]).kind != Node::Kind::tensor ||
      node(arguments[1]).kind != Node::Kind::boolean ||
      !is_empty_dict(arguments[2])) {
    return fault("a parameter with unknown arguments");
  }
  const size_t which = static_cast<size_t>(node(arguments[0]).number);
  Tensor tensor = *graph_.tensors[which];
  tensor.is_parameter = true;
  tensor.requires_grad = node(arguments[1]).number != 0;
  return add_tensor(std::move(tensor));
}

Rebuilder::Result Rebuilder::add_tensor(Tensor tensor) {
  Result result;
  result.node.kind = Node::Kind::tensor;
  result.node.number = static_cast<int64_t>(graph_.tensors.size());
  graph_.tensors.push_back(std::make_shared<const Tensor>(std::move(tensor)));
  return result;
}

std::string Rebuilder::fill(
    Node& object,
    std::span<const NodeId> items,
    bool pairs) {
  if (is_unknown(object)) {
    return "";
  }
  if (!object.items.empty() && pairs != ((object.number & kMapping) != 0)) {
    return "an object that is a list and a dict";
  }
  if (pairs && !items.empty()) {
    object.number |= kMapping;
  }
  object.items.insert(object.items.end(), items.begin(), items.end());
  return "";
}

std::string Rebuilder::build(NodeId target, NodeId state) {
  Node& built = graph_.nodes[target];
  if (is_unknown(built)) {
    return "";
  }
  if (built.kind == Node::Kind::ordered_dict) {
    if (node(state).kind != Node::Kind::dict) {
      return "an OrderedDict with an unknown state";
    }
  } else if (built.kind != Node::Kind::object) {
    return "a state for what has none";
  }
  if (built.state != kNoNode) {
    return "a state is set twice";
  }
  built.state = state;
  return "";
}

bool Rebuilder::read_sizes(NodeId id, std::vector<int64_t>* sizes) {
  const Node& tuple = node(id);
  if (tuple.kind != Node::Kind::tuple || tuple.items.size() > kMaxDimensions) {
    return false;
  }
  for (const NodeId item : tuple.items) {
    if (node(item).kind != Node::Kind::integer) {
      return false;
    }
    sizes->push_back(node(item).number);
  }
  return true;
}

bool Rebuilder::is_empty_dict(NodeId id) const {
  const Node& dict = node(id);
  return (dict.kind == Node::Kind::dict ||
          dict.kind == Node::Kind::ordered_dict) &&
      dict.items.empty() && dict.state == kNoNode;
}

} // namespace deepspeed::formats::pickle
