// Saving and loading DeepSpeed's checkpoints with all ranks together.

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/engine/publish.h"
#include "deepspeed/engine/state.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/random_name.h"
#include "deepspeed/flat/aliases.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/flat/state_dict.h"
#include "deepspeed/formats/json_value.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed {
namespace {

using formats::Value;

formats::DType file_dtype(config::Dtype dtype) {
  switch (dtype) {
    case config::Dtype::fp16:
      return formats::DType::float16;
    case config::Dtype::bf16:
      return formats::DType::bfloat16;
    case config::Dtype::fp32:
      break;
  }
  return formats::DType::float32;
}

const char* optimizer_name(config::OptimizerType type) {
  switch (type) {
    case config::OptimizerType::adamw:
      return "AdamW";
    case config::OptimizerType::sgd:
      return "SGD";
    case config::OptimizerType::lamb:
      return "Lamb";
    default:
      return "Adam";
  }
}

Value hyperparameters(const EngineState& state, const GroupSettings& settings) {
  const config::OptimizerParams& params = state.config.optimizer.params;
  Value value = formats::make_dict();
  value.set("lr", settings.lr);
  if (state.config.optimizer.type == config::OptimizerType::sgd) {
    value.set("momentum", settings.beta1);
    value.set("dampening", params.dampening);
    value.set("nesterov", params.nesterov);
  } else {
    value.set("betas", formats::Tuple{{settings.beta1, settings.beta2}});
    value.set("eps", params.eps);
    value.set("bias_correction", params.bias_correction);
  }
  value.set("weight_decay", settings.weight_decay);
  return checkpoint::complete_hyperparameters(
      optimizer_name(state.config.optimizer.type), std::move(value));
}

checkpoint::ZeroTopology topology_of(const EngineState& state) {
  checkpoint::ZeroTopology topology;
  topology.stage = state.config.zero_optimization.stage;
  topology.ranks = state.ranks->size();
  topology.dtype = file_dtype(state.config.dtype());
  for (size_t i = 0; i < state.groups.size(); ++i) {
    checkpoint::ZeroGroup group;
    for (const flat::FlatEntry& entry : state.groups[i]->entries()) {
      group.parameters.push_back({entry.name, entry.parameter.sizes().vec()});
    }
    group.hyperparameters = hyperparameters(state, state.settings[i]);
    topology.groups.push_back(std::move(group));
  }
  return topology;
}

checkpoint::OptimizerStates optimizer_states(
    const EngineState& state,
    flat::FileTensors& tensors) {
  checkpoint::OptimizerStates states;
  for (size_t i = 0; i < state.groups.size(); ++i) {
    const optim::ShardOptimizer& optimizer = *state.optimizer->optimizers()[i];
    checkpoint::GroupStates group;
    group.fp32 = tensors.add(state.groups[i]->master());
    group.step = optimizer.steps();
    if (group.step > 0) {
      for (const optim::NamedState& named : optimizer.states()) {
        group.states.push_back({named.name, tensors.add(named.tensor)});
      }
    }
    states.groups.push_back(std::move(group));
  }
  const optim::LossScaler::State scaler = state.loss_scaler->state();
  const config::Fp16& fp16 = state.config.fp16;
  states.loss_scaler.dynamic = state.config.dynamic_loss_scale();
  states.loss_scaler.scale = scaler.scale;
  states.loss_scaler.iteration = scaler.iteration;
  states.loss_scaler.last_overflow = scaler.last_overflow;
  states.loss_scaler.hysteresis_left = scaler.hysteresis;
  states.loss_scaler.window = fp16.loss_scale_window;
  states.loss_scaler.min_scale = fp16.min_loss_scale;
  states.loss_scaler.hysteresis = fp16.hysteresis;
  states.loss_scaler.consecutive_hysteresis = fp16.consecutive_hysteresis;
  states.overflow = state.progress.global_steps > 0 && !state.progress.applied;
  states.clip_grad = state.config.gradient_clipping;
  return states;
}

// As Python's state_dict(): module by module, parameters before buffers.
std::vector<std::pair<std::string, at::Tensor>> state_dict_of(
    const torch::nn::Module& module) {
  if (auto* source = dynamic_cast<const flat::StateDictSource*>(&module)) {
    return source->state_dict();
  }
  std::vector<std::pair<std::string, at::Tensor>> entries;
  for (const auto& item : module.named_modules("", true)) {
    const std::string prefix = item.key().empty() ? "" : item.key() + ".";
    for (const auto& own : item.value()->named_parameters(false)) {
      entries.emplace_back(prefix + own.key(), own.value());
    }
    for (const auto& own : item.value()->named_buffers(false)) {
      entries.emplace_back(prefix + own.key(), own.value());
    }
  }
  return entries;
}

// Where the bytes of a tensor of the module lie in host memory.
at::Tensor host_tensor(const EngineState& state, const at::Tensor& tensor) {
  if (tensor.is_cpu()) {
    return tensor;
  }
  for (const auto& group : state.groups) {
    if (const flat::FlatEntry* entry = group->order().find(tensor)) {
      return group->weights()
          .in_host_memory(entry->offset, entry->offset + entry->numel)
          .view(tensor.sizes());
    }
  }
  return tensor.detach().cpu();
}

checkpoint::ModelStates model_states(
    const EngineState& state,
    const Value& client_state,
    flat::FileTensors& tensors) {
  checkpoint::ModelStates states;
  std::vector<std::pair<std::string, at::Tensor>> owners;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    // initialize() has looked, but the module may have grown since then.
    if (const std::string fault = flat::storage_fault(tensor); !fault.empty()) {
      throw base::Error(
          base::ExitCode::config,
          name + " " + fault + ", which a checkpoint cannot hold",
          "",
          "keep it in a member of the module that is not registered");
    }
    states.module.push_back({name, tensors.add(host_tensor(state, tensor))});
    for (const auto& [owner, known] : owners) {
      if (known.is_same(tensor)) {
        states.shared.emplace_back(name, owner);
        return;
      }
    }
    owners.emplace_back(name, tensor);
  };
  for (const auto& [name, tensor] : state_dict_of(*state.module)) {
    add(name, tensor);
  }
  for (const auto& item : state.module->named_buffers()) {
    states.buffers.push_back(item.key());
  }
  for (const flat::NamedParameter& parameter : state.rest) {
    states.frozen.push_back(parameter.name);
  }
  if (state.scheduler != nullptr) {
    Value scheduler = formats::make_dict();
    scheduler.set(
        "last_batch_iteration", state.scheduler->last_batch_iteration());
    states.lr_scheduler = std::move(scheduler);
  }
  states.skipped_steps = state.progress.skipped_steps;
  states.global_steps = state.progress.global_steps;
  states.global_samples = state.progress.global_samples;
  states.ds_config = formats::value_of_json(state.config.source);
  states.client_state = client_state;
  return states;
}

// Rank 0's tag; what happens when others have another one is a setting.
std::string agreed_tag(EngineState& state, const std::string& wanted) {
  const std::string own = wanted.empty()
      ? "global_step" + std::to_string(state.progress.global_steps)
      : wanted;
  const std::vector<std::string> tags = state.ranks->all_gather_text(own);
  for (size_t rank = 1; rank < tags.size(); ++rank) {
    if (tags[rank] == tags[0]) {
      continue;
    }
    const std::string what = "rank " + std::to_string(rank) +
        " saves the tag '" + tags[rank] + "', rank 0 '" + tags[0] + "'";
    switch (state.config.checkpoint.tag_validation) {
      case config::TagValidation::fail:
        throw base::Error(
            base::ExitCode::config,
            what,
            "checkpoint.tag_validation is Fail",
            "give all ranks the same tag");
      case config::TagValidation::warn:
        if (state.ranks->rank() == 0) {
          base::log_warning(what);
        }
        break;
      case config::TagValidation::ignore:
        break;
    }
  }
  return tags[0];
}

// DeepSpeed's wrapper around its own Adam keeps flat groups.
checkpoint::Stage0Layout stage0_layout(const EngineState& state) {
  const config::Optimizer& optimizer = state.config.optimizer;
  const bool fused = (optimizer.type == config::OptimizerType::adam ||
                      optimizer.type == config::OptimizerType::adamw) &&
      !optimizer.params.torch_adam;
  return fused && state.config.dtype() != config::Dtype::fp32
      ? checkpoint::Stage0Layout::flat
      : checkpoint::Stage0Layout::parameters;
}

// Those of this rank. `tensors` keeps what they point to.
std::vector<RankFile> files_of(
    const EngineState& state,
    const Value& client_state,
    flat::FileTensors& tensors) {
  const checkpoint::ZeroTopology topology = topology_of(state);
  const checkpoint::OptimizerStates optimizer =
      optimizer_states(state, tensors);
  const int rank = state.ranks->rank();
  std::vector<RankFile> files;
  if (rank == 0) {
    files.push_back(
        {std::string(checkpoint::kModelStatesFile),
         checkpoint::model_states_value(
             topology,
             model_states(state, client_state, tensors),
             topology.stage == 0 ? &optimizer : nullptr,
             stage0_layout(state))});
  }
  if (topology.stage > 0) {
    files.push_back(
        {checkpoint::shard_states_name(
             rank, topology.dtype == formats::DType::bfloat16),
         checkpoint::shard_states_value(
             topology,
             rank,
             optimizer,
             formats::value_of_json(state.config.source))});
  }
  return files;
}

} // namespace

std::string Engine::save_checkpoint(
    const std::string& folder,
    const SaveOptions& options) {
  EngineState& state = *state_;
  if (state.phase.step_begun && !state.phase.reduced) {
    throw std::logic_error(
        "save_checkpoint() between the micro batches of a step");
  }
  check_parameters(state);
  const std::vector<std::string> late = registered_late(state);
  if (!late.empty() && state.ranks->rank() == 0) {
    base::log_warning(
        "parameters were registered after initialize() and are not trained: " +
        flat::shortened(late));
  }
  const std::string tag = agreed_tag(state, options.tag);
  checkpoint::CommitOptions commit_options;
  commit_options.folder = folder;
  commit_options.tag = tag;
  commit_options.run_id = state.ranks->broadcast_text(file::random_name(32), 0);
  commit_options.write_latest = options.save_latest;
  // While updates are left out nobody knows whether the weights are good: the
  // older ones stay.
  commit_options.keep_last =
      state.progress.skipped.in_a_row() == 0 ? options.keep_last : 0;
  checkpoint::CheckpointCommit commit(commit_options);

  flat::FileTensors tensors;
  std::vector<RankFile> files;
  comm::agree(*state.ranks, [&] {
    files = files_of(state, options.client_state, tensors);
  });
  checkpoint::Manifest manifest;
  manifest.tag = tag;
  manifest.run_id = commit_options.run_id;
  manifest.stage = state.config.zero_optimization.stage;
  manifest.ranks = state.ranks->size();
  manifest.dtype = config::dtype_name(state.config.dtype());
  manifest.global_steps = state.progress.global_steps;
  publish_together(*state.ranks, commit, files, std::move(manifest));
  state.clock.begin_forward();
  return checkpoint::join(folder, tag);
}

bool Engine::is_finite() const {
  for (size_t i = 0; i < state_->groups.size(); ++i) {
    if (!flat::is_finite(state_->groups[i]->master())) {
      return false;
    }
    for (const optim::NamedState& named :
         state_->optimizer->optimizers()[i]->states()) {
      if (!flat::is_finite(named.tensor)) {
        return false;
      }
    }
  }
  return true;
}

void Engine::save_16bit_model(
    const std::string& folder,
    const std::string& name) {
  check_parameters(*state_);
  comm::agree_at_root(*state_->ranks, [&] {
    file::try_make_folders(folder); // else the save below says why
    flat::FileTensors tensors;
    Value value = formats::make_ordered_dict();
    for (const formats::NamedTensor& entry :
         model_states(*state_, formats::make_dict(), tensors).module) {
      value.set(entry.name, entry.tensor);
    }
    formats::save_torch_file(checkpoint::join(folder, name), value);
  });
}

} // namespace deepspeed
