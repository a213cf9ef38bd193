// Pieces of the trees of DeepSpeed's checkpoint files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/checkpoint/zero_states.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::checkpoint::zero_values {

// std::invalid_argument with `what` unless the condition holds.
void require(bool condition, const std::string& what);

// Appends a key that is known to be new: Value::set() would look at all.
void put(formats::Dict& dict, std::string_view key, formats::Value value);
formats::Dict ordered_dict();
formats::Value integers(const std::vector<int64_t>& values);
// torch.Size(sizes)
formats::Value size_object(const std::vector<int64_t>& sizes);
// An instance of a class whose __dict__ is `state`.
formats::Value instance(std::string_view name, formats::Dict state);

// Elements of a flat tensor from `begin` on, in a shape. All views of one
// tensor share its storage.
formats::Value view(
    const formats::Tensor& flat,
    int64_t begin,
    std::vector<int64_t> sizes);
// The first `numel` elements of a flat float32 tensor, in a storage that holds
// nothing else; a copy that is padded with zeros if there are fewer.
formats::Tensor flat_of(
    const formats::Tensor& tensor,
    int64_t numel,
    const std::string& name);

// [OrderedDict name -> torch.Size for each param group]
formats::Value param_shapes(const ZeroTopology& topology);

// state_dict() of an optimizer that has one flat parameter for each param
// group, of numel[g] elements, ...
formats::Value flat_optimizer_state(
    const ZeroTopology& topology,
    const OptimizerStates& states,
    const std::vector<int64_t>& numel);
// ... and of one that has the model's parameters: views of the flat tensors.
formats::Value parameter_optimizer_state(
    const ZeroTopology& topology,
    const OptimizerStates& states);
void check_groups(const ZeroTopology& topology, const OptimizerStates& states);

} // namespace deepspeed::checkpoint::zero_values
