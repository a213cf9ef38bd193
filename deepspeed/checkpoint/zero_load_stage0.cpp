// Reading the optimizer of stage 0: torch's own in fp32, FP16_Optimizer and
// FP16_UnfusedOptimizer of DeepSpeed in fp16 and bf16.
#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/checkpoint/zero_data.h"
#include "deepspeed/checkpoint/zero_keys.h"
#include "deepspeed/checkpoint/zero_load_scaler.h"

namespace deepspeed::checkpoint::zero_load {
namespace {

using namespace zero_keys;
using Names = std::vector<std::vector<std::string>>;

int64_t index(size_t i) {
  return static_cast<int64_t>(i);
}

// The parts of the file that hold the optimizer.
struct Optimizer {
  formats::Field base; // torch's state_dict()
  std::optional<formats::Field> flat; // fp32_groups_flat
  std::optional<formats::Field> weights; // fp32_groups

  size_t group_count() const {
    return base.at(kParamGroups).items().size();
  }
  formats::Field group(size_t g) const {
    return base.at(kParamGroups).at(index(g));
  }
};

Optimizer find_optimizer(const formats::Field& optimizer) {
  const auto base = optimizer.find(kOptimizerStateDict);
  return {
      base ? *base : optimizer,
      optimizer.find(kFp32GroupsFlat),
      optimizer.find(kFp32Groups)};
}

// Parameters that an optimizer can own: no buffers, each tied one once.
std::vector<std::string> candidates(const Data& data) {
  std::unordered_set<std::string> others(
      data.buffers.begin(), data.buffers.end());
  for (const auto& [alias, owner] : data.shared) {
    others.insert(alias);
  }
  std::vector<std::string> names;
  for (const formats::NamedTensor& named : data.module) {
    if (!others.contains(named.name) && named.tensor.numel() > 0) {
      names.push_back(named.name);
    }
  }
  return names;
}

// Names and shapes as topology; an error for a name that the module lacks, or
// without it.
std::vector<ZeroGroup> groups_of(
    const Names& names,
    const Data& data,
    bool new_parameters = false) {
  std::vector<ZeroGroup> groups;
  for (const std::vector<std::string>& list : names) {
    ZeroGroup group;
    for (const std::string& name : list) {
      const auto found = data.module_index.find(name);
      if (found == data.module_index.end() && new_parameters) {
        continue;
      }
      if (found == data.module_index.end()) {
        // The checkpoint may be whole: no older one is to be tried.
        throw base::Error(
            base::ExitCode::config,
            "the checkpoint has no parameter " + name,
            data.path,
            "the model must be the one that was saved");
      }
      group.parameters.push_back(
          {name, data.module[found->second].tensor.sizes});
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

// Why the file's optimizer cannot be that of these groups; empty if it can.
std::string mismatch(
    const Optimizer& optimizer,
    const std::vector<ZeroGroup>& groups) {
  const size_t count = optimizer.group_count();
  if (groups.size() != count) {
    return std::to_string(groups.size()) +
        " param groups, the checkpoint has " + std::to_string(count);
  }
  for (size_t g = 0; g < count; ++g) {
    const std::string which = "param group " + std::to_string(g);
    const auto& parameters = groups[g].parameters;
    if (optimizer.flat) {
      const int64_t numel = optimizer.flat->at(index(g)).tensor().numel();
      if (numel != groups[g].numel()) {
        return which + " of " + std::to_string(groups[g].numel()) +
            " elements, the checkpoint has " + std::to_string(numel);
      }
      continue;
    }
    const size_t numbers = optimizer.group(g).at(kParams).items().size();
    if (numbers != parameters.size()) {
      return which + " of " + std::to_string(parameters.size()) +
          " parameters, the checkpoint has " + std::to_string(numbers);
    }
    for (size_t i = 0; optimizer.weights && i < parameters.size(); ++i) {
      const formats::Field weight =
          optimizer.weights->at(index(g)).at(index(i));
      if (weight.tensor().sizes != parameters[i].sizes) {
        return parameters[i].name + " is " +
            formats::describe(weight.tensor()) + " in the checkpoint's " +
            which;
      }
    }
  }
  return "";
}

// Whether elements [begin, ...) of fp32 weights, rounded, are the parameter.
template <typename T>
bool rounds_to(
    const formats::Tensor& fp32,
    int64_t begin,
    const formats::Tensor& parameter) {
  const int64_t numel = parameter.numel();
  if (begin + numel > fp32.numel() || !fp32.is_contiguous()) {
    return false;
  }
  std::vector<float> weights(static_cast<size_t>(numel));
  read_floats(fp32, begin, begin + numel, weights.data());
  std::vector<T> rounded(weights.size());
  std::vector<T> stored(weights.size());
  std::transform(
      weights.begin(), weights.end(), rounded.begin(), [](float weight) {
        return T(weight);
      });
  parameter.copy_to(reinterpret_cast<std::byte*>(stored.data()));
  return std::memcmp(
             rounded.data(), stored.data(), stored.size() * sizeof(T)) == 0;
}

bool rounds_to(
    const formats::Tensor& fp32,
    int64_t begin,
    const formats::Tensor& parameter) {
  switch (parameter.dtype) {
    case formats::DType::bfloat16:
      return rounds_to<base::BFloat16>(fp32, begin, parameter);
    case formats::DType::float16:
      return rounds_to<base::Float16>(fp32, begin, parameter);
    default:
      return false;
  }
}

// Finds the parameters of 16-bit training by their values: the model's are the
// rounded fp32 weights. Among equal ones the first in the module's order.
// Nothing if some weights belong to no parameter.
std::optional<Names> names_by_value(
    const Optimizer& optimizer,
    const Data& data) {
  std::vector<std::string> rest = candidates(data);
  const auto take =
      [&](const formats::Tensor& fp32, int64_t begin, bool whole) {
        const auto found = std::find_if(
            rest.begin(), rest.end(), [&](const std::string& name) {
              const formats::Tensor& tensor =
                  data.module[data.module_index.at(name)].tensor;
              return (!whole || tensor.sizes == fp32.sizes) &&
                  rounds_to(fp32, begin, tensor);
            });
        std::string name;
        if (found != rest.end()) {
          name = *found;
          rest.erase(found);
        }
        return name;
      };
  Names names(optimizer.group_count());
  for (size_t g = 0; g < names.size(); ++g) {
    if (optimizer.flat) {
      const formats::Tensor& flat = read_floating(optimizer.flat->at(index(g)));
      for (int64_t at = 0; at < flat.numel();) {
        names[g].push_back(take(flat, at, false));
        if (names[g].back().empty()) {
          return std::nullopt;
        }
        at += data.module[data.module_index.at(names[g].back())].tensor.numel();
      }
    } else if (optimizer.weights) {
      const formats::Field weights = optimizer.weights->at(index(g));
      for (size_t i = 0; i < weights.items().size(); ++i) {
        names[g].push_back(take(read_floating(weights.at(index(i))), 0, true));
        if (names[g].back().empty()) {
          return std::nullopt;
        }
      }
    } else {
      return std::nullopt;
    }
  }
  return names;
}

// The parameters of each group: from our own note, from the caller, all in
// their order for a single group, or by value. Nothing if none of that fits and
// the caller can do without.
std::optional<std::vector<ZeroGroup>> find_groups(
    const Optimizer& optimizer,
    const std::optional<formats::Field>& own,
    const ZeroOpenOptions& options,
    const Data& data) {
  std::vector<ZeroGroup> groups;
  if (own) {
    groups = read_param_shapes(own->at(kParamShapes), data);
  } else if (!options.stage0_groups.empty()) {
    groups = groups_of(options.stage0_groups, data, options.new_parameters);
  } else {
    groups = groups_of({candidates(data)}, data);
  }
  const std::string why = mismatch(optimizer, groups);
  if (why.empty()) {
    return groups;
  }
  if (options.stage0_groups.empty()) {
    if (const auto names = names_by_value(optimizer, data)) {
      return groups_of(*names, data);
    }
  }
  // In fp32 the module holds the weights themselves.
  if (options.weights_only && !optimizer.flat && !optimizer.weights) {
    return std::nullopt;
  }
  throw base::Error(
      base::ExitCode::config,
      "stage 0 does not tell which parameters are in which param group, and "
      "what was assumed does not fit: " +
          why,
      data.path,
      "load it into an engine with the model and the param groups it was "
      "saved from");
}

// State entries of one parameter of torch's optimizer.
void add_parameter_state(
    const formats::Field& state,
    const ZeroParameter& parameter,
    Data& data) {
  Data::Place& place = data.places.at(parameter.name);
  for (const formats::DictEntry& entry : state.dict().entries) {
    const std::string* name = entry.key.get_if<std::string>();
    if (name == nullptr) {
      state.fail("a state's name is " + formats::describe(entry.key));
    }
    const formats::Field field = state.at(*name);
    if (*name == kStep) {
      place.step = read_step(field);
    } else if (
        entry.value.tensor() != nullptr && !field.tensor().sizes.empty()) {
      const formats::Tensor& tensor = read_floating(field);
      if (tensor.numel() != parameter.numel()) {
        field.fail(
            formats::describe(tensor) + " for a parameter of " +
            std::to_string(parameter.numel()) + " elements");
      }
      data.states[place.group][*name].add(place.begin, place.numel, tensor);
    }
  }
}

// FusedAdam counts the steps of a group in its last parameter alone.
void share_steps(const ZeroGroup& group, Data& data) {
  int64_t most = 0;
  for (const ZeroParameter& parameter : group.parameters) {
    most = std::max(most, data.places.at(parameter.name).step);
  }
  for (const ZeroParameter& parameter : group.parameters) {
    Data::Place& place = data.places.at(parameter.name);
    const auto& states = data.states[place.group];
    const bool has_state = !states.empty() &&
        states.begin()->second.covers(place.begin, place.begin + place.numel);
    if (has_state && place.step == 0) {
      place.step = most;
    }
  }
}

void load_parameter_states(const Optimizer& optimizer, Data& data) {
  const formats::Field states = optimizer.base.at(kState);
  for (size_t g = 0; g < data.topology.groups.size(); ++g) {
    const ZeroGroup& group = data.topology.groups[g];
    const formats::Field numbers = optimizer.group(g).at(kParams);
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      const auto state = states.find(numbers.at(index(i)).integer());
      if (state) {
        add_parameter_state(*state, group.parameters[i], data);
      }
    }
    share_steps(group, data);
  }
}

void load_flat_states(const Optimizer& optimizer, Data& data) {
  const formats::Field states = optimizer.base.at(kState);
  for (size_t g = 0; g < data.topology.groups.size(); ++g) {
    const ZeroGroup& group = data.topology.groups[g];
    const ZeroParameter whole{"", {group.numel()}};
    const formats::Field numbers = optimizer.group(g).at(kParams);
    const auto state = states.find(numbers.at(0).integer());
    if (!state) {
      continue;
    }
    // As if the group were one parameter.
    data.places[whole.name] = {g, 0, group.numel(), 0};
    add_parameter_state(*state, whole, data);
    for (const ZeroParameter& parameter : group.parameters) {
      data.places.at(parameter.name).step = data.places.at(whole.name).step;
    }
    data.places.erase(whole.name);
  }
}

void load_weights(const Optimizer& optimizer, Data& data) {
  for (size_t g = 0; g < data.topology.groups.size(); ++g) {
    const ZeroGroup& group = data.topology.groups[g];
    if (optimizer.flat) {
      const formats::Field flat = optimizer.flat->at(index(g));
      data.fp32[g].add(0, group.numel(), read_floating(flat));
      continue;
    }
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      const std::string& name = group.parameters[i].name;
      const Data::Place& place = data.places.at(name);
      const formats::Tensor& tensor = optimizer.weights
          ? read_floating(optimizer.weights->at(index(g)).at(index(i)))
          : data.module[data.module_index.at(name)].tensor;
      data.fp32[g].add(place.begin, place.numel, tensor);
    }
  }
}

} // namespace

void load_stage0(
    const formats::Field& root,
    const ZeroOpenOptions& options,
    Data& data) {
  data.topology.stage = 0;
  const auto field = root.find(kOptimizer);
  if (!field || field->is_none()) {
    // Saved without an optimizer.
    data.topology.groups = groups_of({candidates(data)}, data);
    place_parameters(data, {});
    load_weights({root, std::nullopt, std::nullopt}, data);
    return;
  }
  const Optimizer optimizer = find_optimizer(*field);
  const auto own = root.find(kOwnState);
  data.loss_scaler = read_stage0_scaler(*field, own);
  if (const auto clip = field->find(kClipGrad)) {
    data.clip_grad = clip->real();
  }
  auto groups = find_groups(optimizer, own, options, data);
  if (!groups) {
    return;
  }
  data.topology.groups = std::move(*groups);
  place_parameters(data, {});
  for (size_t g = 0; g < data.topology.groups.size(); ++g) {
    data.topology.groups[g].hyperparameters =
        read_hyperparameters(optimizer.group(g));
  }
  load_weights(optimizer, data);
  if (optimizer.flat) {
    load_flat_states(optimizer, data);
  } else {
    load_parameter_states(optimizer, data);
  }
}

} // namespace deepspeed::checkpoint::zero_load
