// The tree of *_optim_states.pt, made from plain structs.
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/checkpoint/zero_keys.h"
#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/checkpoint/zero_states.h"
#include "deepspeed/checkpoint/zero_values.h"

namespace deepspeed::checkpoint {
namespace {

using namespace zero_keys;
using namespace zero_values;

formats::Value loss_scaler_object(
    const LossScalerState& scaler,
    formats::DType dtype) {
  formats::Dict state;
  put(state, kCurScale, scaler.scale);
  put(state, "dynamic", scaler.dynamic);
  if (!scaler.dynamic) {
    return instance(kLossScalerClass, std::move(state));
  }
  put(state, kCurIter, scaler.iteration);
  put(state, kLastOverflowIter, scaler.last_overflow);
  put(state, kScaleFactor, scaler.factor);
  put(state, kScaleWindow, scaler.window);
  put(state, kMinScale, scaler.min_scale);
  put(state, kDelayedShift, scaler.hysteresis);
  put(state, kCurHysteresis, scaler.hysteresis_left);
  put(state, kConsecutiveHysteresis, scaler.consecutive_hysteresis);
  put(state, "raise_error_at_min_scale", true);
  formats::Object type;
  type.name = "torch." + std::string(formats::dtype_name(dtype));
  put(state, "dtype", std::move(type));
  return instance(kDynamicLossScalerClass, std::move(state));
}

struct ShardLists {
  formats::List fp32;
  formats::List paddings;
  formats::List alignments;
  formats::List counts;
  formats::List slices;
  std::vector<int64_t> sizes;
};

// name -> where the parameter's part of the shard lies, for those that have one
formats::Value slice_addresses(const ZeroGroup& group, const Shard& shard) {
  formats::Dict addresses = ordered_dict();
  int64_t begin = 0;
  for (const ZeroParameter& parameter : group.parameters) {
    const Overlap part = overlap_of(shard, begin, parameter.numel());
    if (part.numel > 0) {
      formats::Dict address;
      put(address, "numel", part.numel);
      put(address, "start", part.in_shard);
      put(addresses,
          parameter.name,
          instance(kFragmentClass, std::move(address)));
    }
    begin += parameter.numel();
  }
  return addresses;
}

ShardLists shard_lists(
    const ZeroTopology& topology,
    int rank,
    const OptimizerStates& states) {
  ShardLists lists;
  for (size_t g = 0; g < topology.groups.size(); ++g) {
    const ZeroGroup& group = topology.groups[g];
    const Shard shard = shard_of(group.numel(), topology.ranks, rank);
    const formats::Tensor& weights = states.groups[g].fp32;
    require(
        weights.numel() == shard.used || weights.numel() == shard.size,
        "the fp32 shard has " + std::to_string(weights.numel()) +
            " elements, not " + std::to_string(shard.used));
    lists.sizes.push_back(shard.size);
    lists.fp32.push_back(flat_of(weights, shard.used, "fp32 weights"));
    lists.paddings.push_back(shard.size - shard.used);
    lists.alignments.push_back(
        integers(std::vector<int64_t>(group.parameters.size(), 0)));
    lists.counts.push_back(topology.ranks);
    lists.slices.push_back(slice_addresses(group, shard));
  }
  return lists;
}

} // namespace

formats::Value shard_states_value(
    const ZeroTopology& topology,
    int rank,
    const OptimizerStates& states,
    const formats::Value& ds_config) {
  require(
      topology.stage == 1 || topology.stage == 2,
      "no shards in stage " + std::to_string(topology.stage));
  check_groups(topology, states);
  ShardLists lists = shard_lists(topology, rank, states);
  formats::Object stage;
  stage.name = kZeroStageClass;
  stage.call = formats::Object::Call::function;
  stage.arguments = {topology.stage};

  formats::Dict optimizer;
  put(optimizer,
      kLossScaler,
      loss_scaler_object(states.loss_scaler, topology.dtype));
  put(optimizer, kDynamicLossScale, states.loss_scaler.dynamic);
  put(optimizer, kOverflow, states.overflow);
  put(optimizer, kClipGrad, states.clip_grad);
  put(optimizer,
      kBaseOptimizerState,
      flat_optimizer_state(topology, states, lists.sizes));
  put(optimizer, kFp32Partition, std::move(lists.fp32));
  put(optimizer, kZeroStage, std::move(stage));
  put(optimizer, kGroupPaddings, std::move(lists.paddings));
  put(optimizer, kAlignmentPaddings, std::move(lists.alignments));
  put(optimizer, kPartitionCount, std::move(lists.counts));
  put(optimizer, kDsVersion, kDeepSpeedVersion);
  put(optimizer, kSliceMappings, std::move(lists.slices));
  formats::Dict out;
  put(out, kOptimizerStateDict, std::move(optimizer));
  put(out, kDsConfig, ds_config);
  put(out, kDsVersion, kDeepSpeedVersion);
  return out;
}

} // namespace deepspeed::checkpoint
