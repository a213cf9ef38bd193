// The tree of mp_rank_00_model_states.pt, made from plain structs.
#include "deepspeed/checkpoint/zero_states.h"

#include <unordered_map>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_keys.h"
#include "deepspeed/checkpoint/zero_values.h"
#include "deepspeed/formats/pickle.h"

namespace deepspeed::checkpoint {

using formats::Dict;
using formats::List;
using formats::Value;

namespace {

using namespace zero_keys;
using namespace zero_values;

// What FP16_Optimizer and FP16_UnfusedOptimizer write before the rest.
void put_stage0_scale(Dict& out, const LossScalerState& scaler) {
  put(out, kDynamicLossScale, scaler.dynamic);
  put(out, kCurScale, scaler.scale);
  put(out, kCurIter, scaler.iteration);
  if (scaler.dynamic) {
    put(out, kLastOverflowIter, scaler.last_overflow);
    put(out, kScaleFactor, scaler.factor);
    put(out, kScaleWindow, scaler.window);
  }
}

Value stage0_optimizer(
    const ZeroTopology& topology,
    const OptimizerStates& states,
    Stage0Layout layout) {
  if (topology.dtype == formats::DType::float32) {
    return parameter_optimizer_state(topology, states);
  }
  const bool flat = layout == Stage0Layout::flat;
  Dict out;
  if (!flat || topology.dtype == formats::DType::float16) {
    put_stage0_scale(out, states.loss_scaler);
  }
  List weights;
  std::vector<int64_t> numel;
  for (size_t g = 0; g < states.groups.size(); ++g) {
    const ZeroGroup& group = topology.groups[g];
    numel.push_back(group.numel());
    const formats::Tensor whole =
        flat_of(states.groups[g].fp32, numel[g], "fp32 weights");
    if (flat) {
      weights.push_back(whole);
      continue;
    }
    List views;
    int64_t begin = 0;
    for (const ZeroParameter& parameter : group.parameters) {
      views.push_back(view(whole, begin, parameter.sizes));
      begin += parameter.numel();
    }
    weights.push_back(std::move(views));
  }
  put(out,
      kOptimizerStateDict,
      flat ? flat_optimizer_state(topology, states, numel)
           : parameter_optimizer_state(topology, states));
  put(out, flat ? kFp32GroupsFlat : kFp32Groups, std::move(weights));
  if (flat) {
    put(out, kClipGrad, states.clip_grad);
  }
  return out;
}

// What stage 0 has no place for, but an exact resume needs.
Value own_stage0_state(
    const ZeroTopology& topology,
    const LossScalerState& scaler) {
  Dict out;
  put(out, kFormatVersion, 1);
  put(out, kParamShapes, param_shapes(topology));
  put(out, kMinScale, scaler.min_scale);
  put(out, kDelayedShift, scaler.hysteresis);
  put(out, kCurHysteresis, scaler.hysteresis_left);
  put(out, kConsecutiveHysteresis, scaler.consecutive_hysteresis);
  return out;
}

using Module = std::unordered_map<std::string_view, const formats::Tensor*>;

Module index_of(const std::vector<formats::NamedTensor>& module) {
  Module index;
  for (const formats::NamedTensor& named : module) {
    require(
        index.emplace(named.name, &named.tensor).second,
        "two tensors are named " + named.name);
  }
  return index;
}

void check_module(const ZeroTopology& topology, const Module& module) {
  std::unordered_set<std::string_view> seen;
  for (const ZeroGroup& group : topology.groups) {
    for (const ZeroParameter& parameter : group.parameters) {
      const auto found = module.find(parameter.name);
      require(
          found != module.end() && found->second->sizes == parameter.sizes,
          "the module has no " + parameter.name + " of that shape");
      require(
          seen.insert(parameter.name).second,
          parameter.name + " is in the param groups twice");
    }
  }
}

// Frozen parameters by name: their shapes, or the tensors themselves.
Value frozen_entries(
    const std::vector<std::string>& names,
    const Module& module,
    bool shapes) {
  Dict out = ordered_dict();
  for (const std::string& name : names) {
    const auto found = module.find(name);
    require(found != module.end(), "no frozen parameter " + name);
    put(out,
        name,
        shapes ? size_object(found->second->sizes) : Value(*found->second));
  }
  return out;
}

void add_client_state(Value& out, const Value& client_state) {
  const Dict* client = client_state.get_if<Dict>();
  require(client != nullptr, "the client state is no dict");
  for (const formats::DictEntry& entry : client->entries) {
    const std::string* key = entry.key.get_if<std::string>();
    if (key != nullptr && is_engine_key(*key)) {
      throw base::Error(
          base::ExitCode::usage,
          "the client state has a key that the engine writes: " +
              formats::describe(entry.key),
          "",
          "choose another name");
    }
    out.set(entry.key, entry.value);
  }
}

Value parallel_dimensions() {
  Dict out;
  put(out, "pp_degree", 1);
  put(out, "tp_degree", 1);
  return out;
}

} // namespace

int64_t ZeroParameter::numel() const {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  return count;
}

int64_t ZeroGroup::numel() const {
  int64_t count = 0;
  for (const ZeroParameter& parameter : parameters) {
    count += parameter.numel();
  }
  return count;
}

Value model_states_value(
    const ZeroTopology& topology,
    const ModelStates& states,
    const OptimizerStates* optimizer,
    Stage0Layout layout) {
  const bool sharded = topology.stage > 0;
  require(
      sharded == (optimizer == nullptr), "optimizer states go with stage 0");
  const Module module = index_of(states.module);
  check_module(topology, module);
  if (!sharded) {
    check_groups(topology, *optimizer);
  }
  Dict tensors = ordered_dict();
  for (const formats::NamedTensor& named : states.module) {
    put(tensors, named.name, named.tensor);
  }
  Dict shared;
  for (const auto& [alias, owner] : states.shared) {
    put(shared, alias, owner);
  }
  // Stage 1 leaves frozen parameters to the module, as DeepSpeed does.
  const bool fragments = topology.stage >= 2;
  Dict out;
  put(out, kModule, std::move(tensors));
  put(out, kBufferNames, List(states.buffers.begin(), states.buffers.end()));
  put(out,
      kOptimizer,
      sharded ? Value() : stage0_optimizer(topology, *optimizer, layout));
  put(out, kParamShapes, sharded ? param_shapes(topology) : Value());
  put(out,
      kFrozenParamShapes,
      fragments ? frozen_entries(states.frozen, module, true) : Value());
  put(out, kSharedParams, sharded ? Value(std::move(shared)) : Value());
  put(out,
      kFrozenParamFragments,
      fragments ? frozen_entries(states.frozen, module, false) : Value());
  put(out, kLrScheduler, states.lr_scheduler);
  put(out, kDataSampler, Value());
  put(out, kRandomLtd, Value());
  put(out, kSkippedSteps, states.skipped_steps);
  put(out, kGlobalSteps, states.global_steps);
  put(out, kGlobalSamples, states.global_samples);
  put(out, kDpWorldSize, topology.ranks);
  put(out, kMpWorldSize, 1);
  put(out, kParallelDimensions, parallel_dimensions());
  put(out, kDsConfig, states.ds_config);
  put(out, kDsVersion, kDeepSpeedVersion);
  if (!sharded) {
    put(out, kOwnState, own_stage0_state(topology, optimizer->loss_scaler));
  }
  Value value = std::move(out);
  add_client_state(value, states.client_state);
  return value;
}

uint64_t estimate_file_bytes(const Value& value) {
  // Headers, names, alignment and the table of contents, for each entry.
  constexpr uint64_t kEntryBytes = 1024;
  constexpr uint64_t kOtherEntries = 8;
  const formats::Pickle pickle = formats::write_pickle(value);
  uint64_t bytes = pickle.bytes.size() +
      kEntryBytes * (kOtherEntries + pickle.storages.size());
  for (const auto& storage : pickle.storages) {
    bytes += storage->size();
  }
  return bytes;
}

} // namespace deepspeed::checkpoint
