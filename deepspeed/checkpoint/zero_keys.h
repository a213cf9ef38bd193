// The keys and class names in DeepSpeed's checkpoint files.
// Source: DeepSpeed 0.19.8, checkpoint/constants.py and runtime/engine.py.
#pragma once

#include <algorithm>
#include <iterator>
#include <string_view>

namespace deepspeed::checkpoint::zero_keys {

// mp_rank_00_model_states.pt
inline constexpr std::string_view kModule = "module";
inline constexpr std::string_view kBufferNames = "buffer_names";
inline constexpr std::string_view kOptimizer = "optimizer";
inline constexpr std::string_view kParamShapes = "param_shapes";
inline constexpr std::string_view kFrozenParamShapes = "frozen_param_shapes";
inline constexpr std::string_view kSharedParams = "shared_params";
inline constexpr std::string_view kFrozenParamFragments =
    "frozen_param_fragments";
inline constexpr std::string_view kLrScheduler = "lr_scheduler";
inline constexpr std::string_view kDataSampler = "data_sampler";
inline constexpr std::string_view kRandomLtd = "random_ltd";
inline constexpr std::string_view kSkippedSteps = "skipped_steps";
inline constexpr std::string_view kGlobalSteps = "global_steps";
inline constexpr std::string_view kGlobalSamples = "global_samples";
inline constexpr std::string_view kDpWorldSize = "dp_world_size";
inline constexpr std::string_view kMpWorldSize = "mp_world_size";
inline constexpr std::string_view kParallelDimensions =
    "checkpoint_parallel_dimensions";
inline constexpr std::string_view kDsConfig = "ds_config";
inline constexpr std::string_view kDsVersion = "ds_version";
// Ours, in stage 0.
inline constexpr std::string_view kOwnState = "deepspeed_cpp";
inline constexpr std::string_view kFormatVersion = "format_version";

// All of the above: what a client state may not use and what is no part of it.
inline bool is_engine_key(std::string_view key) {
  constexpr std::string_view kAll[] = {
      kModule,
      kBufferNames,
      kOptimizer,
      kParamShapes,
      kFrozenParamShapes,
      kSharedParams,
      kFrozenParamFragments,
      kLrScheduler,
      kDataSampler,
      kRandomLtd,
      kSkippedSteps,
      kGlobalSteps,
      kGlobalSamples,
      kDpWorldSize,
      kMpWorldSize,
      kParallelDimensions,
      kDsConfig,
      kDsVersion,
      kOwnState};
  return std::find(std::begin(kAll), std::end(kAll), key) != std::end(kAll);
}

// *_optim_states.pt and the optimizer of stage 0
inline constexpr std::string_view kOptimizerStateDict = "optimizer_state_dict";
inline constexpr std::string_view kLossScaler = "loss_scaler";
inline constexpr std::string_view kDynamicLossScale = "dynamic_loss_scale";
inline constexpr std::string_view kOverflow = "overflow";
inline constexpr std::string_view kClipGrad = "clip_grad";
inline constexpr std::string_view kBaseOptimizerState = "base_optimizer_state";
inline constexpr std::string_view kBaseOptimizerStep =
    "base_optimizer_state_step";
inline constexpr std::string_view kFp32Partition =
    "single_partition_of_fp32_groups";
inline constexpr std::string_view kZeroStage = "zero_stage";
inline constexpr std::string_view kGroupPaddings = "group_paddings";
inline constexpr std::string_view kAlignmentPaddings =
    "param_alignment_paddings";
inline constexpr std::string_view kPartitionCount = "partition_count";
inline constexpr std::string_view kSliceMappings = "param_slice_mappings";
inline constexpr std::string_view kFp32GroupsFlat = "fp32_groups_flat";
inline constexpr std::string_view kFp32Groups = "fp32_groups";

// state_dict() of an optimizer
inline constexpr std::string_view kState = "state";
inline constexpr std::string_view kParamGroups = "param_groups";
inline constexpr std::string_view kParams = "params";
inline constexpr std::string_view kStep = "step";

// Loss scalers
inline constexpr std::string_view kCurScale = "cur_scale";
inline constexpr std::string_view kCurIter = "cur_iter";
inline constexpr std::string_view kLastOverflowIter = "last_overflow_iter";
inline constexpr std::string_view kScaleFactor = "scale_factor";
inline constexpr std::string_view kScaleWindow = "scale_window";
inline constexpr std::string_view kMinScale = "min_scale";
inline constexpr std::string_view kDelayedShift = "delayed_shift";
inline constexpr std::string_view kCurHysteresis = "cur_hysteresis";
inline constexpr std::string_view kConsecutiveHysteresis =
    "consecutive_hysteresis";

// Classes; the pickle reader's list of allowed names has them too.
inline constexpr const char* kSizeClass = "torch.Size";
inline constexpr const char* kLossScalerClass =
    "deepspeed.runtime.fp16.loss_scaler.LossScaler";
inline constexpr const char* kDynamicLossScalerClass =
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler";
inline constexpr const char* kZeroStageClass =
    "deepspeed.runtime.zero.config.ZeroStageEnum";
inline constexpr const char* kFragmentClass =
    "deepspeed.utils.tensor_fragment.fragment_address";

} // namespace deepspeed::checkpoint::zero_keys
