// The contents of DeepSpeed's checkpoint files for ZeRO stages 0, 1 and 2, from
// plain structs to the trees that save_torch_file() writes.
// Format: DeepSpeed 0.19.8, runtime/engine.py (_common_checkpoint_state),
// runtime/zero/stage_1_and_2.py (state_dict) and docs/checkpoint_format.md.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/formats/dtype.h"
#include "deepspeed/formats/safetensors.h"
#include "deepspeed/formats/value.h"

namespace deepspeed::checkpoint {

// The version of DeepSpeed whose files these are.
inline constexpr const char* kDeepSpeedVersion = "0.19.8";

struct ZeroParameter {
  std::string name;
  std::vector<int64_t> sizes;

  int64_t numel() const;
};

// A param group: parameters in flat order, frozen and empty ones left out.
struct ZeroGroup {
  std::vector<ZeroParameter> parameters;
  // A dict: lr, betas (a tuple), eps, weight_decay ... See
  // complete_hyperparameters().
  formats::Value hyperparameters = formats::make_dict();

  int64_t numel() const;
};

struct ZeroTopology {
  int stage = 0;
  int ranks = 1;
  formats::DType dtype = formats::DType::float32; // of the model's weights
  std::vector<ZeroGroup> groups;
};

struct LossScalerState {
  bool dynamic = false;
  double scale = 1;
  // The rest is of a dynamic scaler only.
  int64_t iteration = 0;
  int64_t last_overflow = -1; // the iteration
  double factor = 2;
  int64_t window = 1000;
  double min_scale = 1;
  int64_t hysteresis = 2; // overflows until the scale falls
  int64_t hysteresis_left = 2;
  bool consecutive_hysteresis = false;
};

// What the optimizer keeps for one param group: flat float32 tensors, either
// of the whole group (stage 0) or of one shard (stages 1, 2).
struct GroupStates {
  // The master weights. Shard::used or Shard::size elements long; what is
  // longer than `used` is padding and stays out of the file.
  formats::Tensor fp32;
  // "exp_avg", "exp_avg_sq"; "momentum_buffer" ... of the same lengths. Those
  // of Shard::size are written as they lie, shorter ones through a copy.
  // Empty before the first step.
  std::vector<formats::NamedTensor> states;
  int64_t step = 0; // updates so far
};

struct OptimizerStates {
  std::vector<GroupStates> groups; // as in ZeroTopology
  LossScalerState loss_scaler;
  bool overflow = false; // in the last step
  double clip_grad = 0;
};

// How Python keeps the optimizer of stage 0, which depends on its class.
enum class Stage0Layout {
  flat, // FusedAdam with fp16 or bf16: one flat tensor for each group
  parameters, // any other, and all of fp32: one tensor for each parameter
};

struct ModelStates {
  // state_dict(): parameters and buffers in its order. Tied names are repeated
  // and share a Storage.
  std::vector<formats::NamedTensor> module;
  std::vector<std::string> buffers; // names
  std::vector<std::string> frozen; // names of parameters outside all groups
  // alias -> the name that owns the data
  std::vector<std::pair<std::string, std::string>> shared;
  formats::Value lr_scheduler; // state_dict(), None without one
  int64_t skipped_steps = 0;
  int64_t global_steps = 0;
  int64_t global_samples = 0;
  formats::Value ds_config = formats::make_dict();
  formats::Value client_state = formats::make_dict();
};

// The tree of mp_rank_00_model_states.pt. For stage 0 `optimizer` holds whole
// groups and is required, else it must be null. A client_state with a key that
// the engine owns is Error(usage) with that key; shapes that contradict the
// topology are std::invalid_argument.
formats::Value model_states_value(
    const ZeroTopology& topology,
    const ModelStates& states,
    const OptimizerStates* optimizer,
    Stage0Layout layout = Stage0Layout::parameters);

// The tree of [bf16_]zero_pp_rank_R_mp_rank_00_optim_states.pt, for stages 1
// and 2.
formats::Value shard_states_value(
    const ZeroTopology& topology,
    int rank,
    const OptimizerStates& shard,
    const formats::Value& ds_config);

// The keys that DeepSpeed's and torch's Adam, AdamW, SGD ... expect in a param
// group, with their defaults, for those that `given` lacks: Python's
// load_state_dict() takes the file's group as it is. `optimizer` is the type of
// the ds_config, in any case.
formats::Value complete_hyperparameters(
    const std::string& optimizer,
    formats::Value given);

// Bytes that save_torch_file() will take for a tree, a little more at most:
// for the check of free space.
uint64_t estimate_file_bytes(const formats::Value& value);

} // namespace deepspeed::checkpoint
