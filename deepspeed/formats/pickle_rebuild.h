// What the names in a pickle stand for: tensors, OrderedDicts, inert records.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/pickle_graph.h"

namespace deepspeed::formats::pickle {

// Plays the part of Python's calls. Nothing is called: tensors are made here,
// with a check of each argument, plain data becomes records, and of what is
// unknown the name is kept.
class Rebuilder {
 public:
  // Both must stay as long as the rebuilder.
  Rebuilder(Graph& graph, const StorageSource& storages)
      : graph_(graph), source_(storages) {}

  // A new node, or why there is none.
  struct Result {
    Node node;
    std::string fault;
  };

  // The persistent id ("storage", torch.FloatStorage, key, location, numel).
  Result storage(NodeId id);
  // callee(*arguments), or callee.__new__(callee, *arguments).
  Result call(Object::Call how, NodeId callee, NodeId arguments);
  // Appends items to an object, or sets pairs in it; returns why not.
  std::string fill(Node& object, std::span<const NodeId> items, bool pairs);
  // Gives a state to an object or an OrderedDict; returns why not.
  std::string build(NodeId target, NodeId state);

 private:
  struct TypedStorage {
    DType dtype; // of an untyped one: uint8
    std::shared_ptr<const Storage> storage;
  };

  Result tensor(const std::vector<NodeId>& arguments, bool typed);
  Result record(Object::Call how, std::string_view name, NodeId arguments)
      const;
  Result parameter(const std::vector<NodeId>& arguments);
  Result add_tensor(Tensor tensor);
  bool read_sizes(NodeId id, std::vector<int64_t>* sizes);
  bool is_empty_dict(NodeId id) const;
  const Node& node(NodeId id) const {
    return graph_.nodes[id];
  }

  Graph& graph_;
  const StorageSource& source_;
  std::unordered_map<std::string, std::shared_ptr<const Storage>> by_key_;
  std::vector<TypedStorage> storages_;
};

} // namespace deepspeed::formats::pickle
