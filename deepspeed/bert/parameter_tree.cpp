// Parameters under dotted names, as a nest of plain modules.
#include "deepspeed/bert/parameter_tree.h"

namespace deepspeed::bert {

at::Tensor ParameterTree::add(
    const std::string& dotted_name,
    at::Tensor value) {
  const size_t dot = dotted_name.find('.');
  if (dot == std::string::npos) {
    return register_parameter(dotted_name, std::move(value));
  }
  const std::string child = dotted_name.substr(0, dot);
  const auto* found = named_children().find(child);
  const auto tree = found != nullptr
      ? std::dynamic_pointer_cast<ParameterTree>(*found)
      : register_module(child, std::make_shared<ParameterTree>());
  TORCH_INTERNAL_ASSERT(tree != nullptr);
  return tree->add(dotted_name.substr(dot + 1), std::move(value));
}

} // namespace deepspeed::bert
