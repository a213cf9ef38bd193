// What the names in a pickle stand for: tensors, OrderedDicts, inert records.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "deepspeed/checkpoint/pickle.h"
#include "deepspeed/checkpoint/pickle_graph.h"

namespace deepspeed::checkpoint::pickle {

// The name itself, from the list of allowed ones, or "" if it is not on it.
std::string_view allowed_name(std::string_view name);

// Plays the part of Python's calls. Nothing is called: each allowed name has
// its own check of the arguments, and what fails it is refused.
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
  // Gives a state to an object or an OrderedDict; returns why not.
  std::string build(NodeId target, NodeId state);

 private:
  struct TypedStorage {
    DType dtype;
    std::shared_ptr<const Storage> storage;
  };

  Result tensor(const std::vector<NodeId>& arguments);
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

} // namespace deepspeed::checkpoint::pickle
