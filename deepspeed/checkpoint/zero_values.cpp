// Pieces of the trees of DeepSpeed's checkpoint files.
#include "deepspeed/checkpoint/zero_values.h"

#include <algorithm>
#include <stdexcept>

#include "deepspeed/checkpoint/zero_keys.h"

namespace deepspeed::checkpoint::zero_values {

using namespace zero_keys;

void require(bool condition, const std::string& what) {
  if (!condition) {
    throw std::invalid_argument(what);
  }
}

void put(formats::Dict& dict, std::string_view key, formats::Value value) {
  dict.entries.push_back({std::string(key), std::move(value)});
}

formats::Dict ordered_dict() {
  formats::Dict dict;
  dict.ordered = true;
  return dict;
}

formats::Value integers(const std::vector<int64_t>& values) {
  return formats::List(values.begin(), values.end());
}

formats::Value size_object(const std::vector<int64_t>& sizes) {
  formats::Object size;
  size.name = kSizeClass;
  size.call = formats::Object::Call::function;
  size.arguments = {formats::Tuple{formats::List(sizes.begin(), sizes.end())}};
  return size;
}

formats::Value instance(std::string_view name, formats::Dict state) {
  formats::Object object;
  object.name = name;
  object.call = formats::Object::Call::constructor;
  object.state = std::move(state);
  return object;
}

formats::Value view(
    const formats::Tensor& flat,
    int64_t begin,
    std::vector<int64_t> sizes) {
  formats::Tensor tensor = flat;
  tensor.strides = formats::contiguous_strides(sizes);
  tensor.sizes = std::move(sizes);
  tensor.storage_offset += begin;
  return tensor;
}

formats::Tensor flat_of(
    const formats::Tensor& tensor,
    int64_t numel,
    const std::string& name) {
  require(
      tensor.dtype == formats::DType::float32 && tensor.storage != nullptr &&
          tensor.is_contiguous(),
      name + " is no contiguous float32 tensor");
  const std::span<const std::byte> bytes = tensor.contiguous_bytes();
  const size_t wanted = static_cast<size_t>(numel) * sizeof(float);
  if (bytes.size() >= wanted) {
    return formats::Tensor::borrow(
        formats::DType::float32, {numel}, bytes.data(), tensor.storage);
  }
  const auto padded = std::make_shared<std::vector<std::byte>>(wanted);
  std::copy(bytes.begin(), bytes.end(), padded->begin());
  return formats::Tensor::borrow(
      formats::DType::float32, {numel}, padded->data(), padded);
}

formats::Value param_shapes(const ZeroTopology& topology) {
  formats::List groups;
  for (const ZeroGroup& group : topology.groups) {
    formats::Dict shapes = ordered_dict();
    for (const ZeroParameter& parameter : group.parameters) {
      put(shapes, parameter.name, size_object(parameter.sizes));
    }
    groups.push_back(std::move(shapes));
  }
  return groups;
}

namespace {

// A group of the optimizer's state_dict() with the numbers [first, first + n).
formats::Value param_group(const ZeroGroup& group, int64_t first, int64_t n) {
  const formats::Dict* given = group.hyperparameters.get_if<formats::Dict>();
  require(given != nullptr, "hyperparameters are no dict");
  formats::List numbers;
  for (int64_t i = 0; i < n; ++i) {
    numbers.push_back(first + i);
  }
  formats::Value out = *given;
  out.set(std::string(kParams), std::move(numbers));
  return out;
}

} // namespace

void check_groups(const ZeroTopology& topology, const OptimizerStates& states) {
  require(
      states.groups.size() == topology.groups.size(),
      "states of " + std::to_string(states.groups.size()) +
          " param groups for a topology of " +
          std::to_string(topology.groups.size()));
}

formats::Value flat_optimizer_state(
    const ZeroTopology& topology,
    const OptimizerStates& states,
    const std::vector<int64_t>& numel) {
  formats::Dict state;
  formats::List groups;
  for (size_t g = 0; g < states.groups.size(); ++g) {
    const GroupStates& group = states.groups[g];
    const int64_t number = static_cast<int64_t>(g);
    if (!group.states.empty()) {
      formats::Dict entries;
      put(entries, kStep, group.step);
      for (const formats::NamedTensor& named : group.states) {
        put(entries, named.name, flat_of(named.tensor, numel[g], named.name));
      }
      state.entries.push_back({number, std::move(entries)});
    }
    groups.push_back(param_group(topology.groups[g], number, 1));
  }
  formats::Dict out;
  put(out, kState, std::move(state));
  put(out, kParamGroups, std::move(groups));
  return out;
}

formats::Value parameter_optimizer_state(
    const ZeroTopology& topology,
    const OptimizerStates& states) {
  formats::Dict state;
  formats::List groups;
  int64_t number = 0;
  for (size_t g = 0; g < states.groups.size(); ++g) {
    const ZeroGroup& group = topology.groups[g];
    std::vector<formats::NamedTensor> flats;
    for (const formats::NamedTensor& named : states.groups[g].states) {
      flats.push_back(
          {named.name, flat_of(named.tensor, group.numel(), named.name)});
    }
    const int64_t first = number;
    int64_t begin = 0;
    for (const ZeroParameter& parameter : group.parameters) {
      formats::Dict entries;
      put(entries, kStep, states.groups[g].step);
      for (const formats::NamedTensor& flat : flats) {
        put(entries, flat.name, view(flat.tensor, begin, parameter.sizes));
      }
      if (!flats.empty()) {
        state.entries.push_back({number, std::move(entries)});
      }
      ++number;
      begin += parameter.numel();
    }
    groups.push_back(param_group(group, first, number - first));
  }
  formats::Dict out;
  put(out, kState, std::move(state));
  put(out, kParamGroups, std::move(groups));
  return out;
}

} // namespace deepspeed::checkpoint::zero_values
