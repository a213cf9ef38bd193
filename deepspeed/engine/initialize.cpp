// From a module and a configuration to an engine.
#include <algorithm>
#include <stdexcept>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/comm/rank_info.h"
#include "deepspeed/engine/state.h"
#include "deepspeed/flat/aliases.h"
#include "deepspeed/flat/file_tensor.h"

namespace deepspeed {
namespace {

using flat::NamedParameter;
using flat::NamedParameters;

base::Error config_error(const std::string& what, const std::string& hint) {
  return base::Error(base::ExitCode::config, what, "", hint);
}

// Rank 0's values everywhere: ranks may have drawn different ones.
void broadcast(const at::Tensor& tensor, comm::ProcessGroup& ranks) {
  if (ranks.size() == 1 || tensor.numel() == 0) {
    return;
  }
  const at::NoGradGuard no_grad;
  const at::Tensor flat = tensor.detach()
                              .cpu()
                              .resolve_conj()
                              .resolve_neg()
                              .reshape({-1})
                              .contiguous();
  ranks.broadcast(flat.view(at::kByte), 0)->wait(); // any dtype
  tensor.detach().copy_(flat.view(tensor.sizes()));
}

// What a save could not write is known before anything is trained.
void check_storable(
    const char* what,
    const std::string& name,
    const at::Tensor& tensor) {
  const std::string fault = flat::storage_fault(tensor);
  if (!fault.empty()) {
    throw config_error(
        std::string(what) + " " + name + " " + fault +
            ", which a checkpoint cannot hold",
        "keep it dense, in a dtype such as float or complex; or in a member of "
        "the module that is not registered, if it can be computed again");
  }
}

void check_parameter(
    const EngineState& state,
    const NamedParameter& parameter) {
  check_storable("parameter", parameter.name, parameter.tensor);
  if (!at::isFloatingType(parameter.tensor.scalar_type())) {
    throw config_error(
        "parameter " + parameter.name + " is " +
            std::string(at::toString(parameter.tensor.scalar_type())) +
            ", not a floating type",
        "freeze it (requires_grad_(false)) or make it a buffer");
  }
  if (parameter.tensor.device() != state.placement.device) {
    throw config_error(
        "parameter " + parameter.name + " is on " +
            parameter.tensor.device().str() + ", others are on " +
            state.placement.device.str(),
        "move the whole module to one device first");
  }
}

// A module on a GPU is trained with the optimizer in host memory. With NCCL
// only the own shard of gradients and weights passes through there.
void choose_device(
    EngineState& state,
    const std::vector<NamedParameters>& groups) {
  for (const auto& group : groups) {
    for (const NamedParameter& parameter : group) {
      state.placement.device = parameter.tensor.device();
    }
  }
  const config::OffloadOptimizer& offload =
      state.config.zero_optimization.offload_optimizer;
  state.placement.pin_memory = offload.pin_memory;
  state.placement.exchange_on_device = state.ranks->has_gpu();
  if (state.placement.device.is_cpu() && state.ranks->has_gpu()) {
    throw config_error(
        "NCCL is asked for, but the module is on the CPU",
        "move it before: module->to(torch::Device(torch::kCUDA, local_rank)); "
        "or run without DS_COMM=nccl");
  }
  if (!state.placement.device.is_cpu() &&
      offload.device != config::OffloadDevice::cpu) {
    throw config_error(
        "the module is on " + state.placement.device.str() +
            ", and an optimizer on a GPU is not there yet",
        "add \"zero_optimization\": {\"stage\": 1, \"offload_optimizer\": "
        "{\"device\": \"cpu\"}}");
  }
}

// The parameters of each param group; those of no group stay in `rest`.
std::vector<NamedParameters> grouped(
    NamedParameters& rest,
    const std::vector<ParamGroup>& wanted) {
  std::vector<NamedParameters> groups;
  if (wanted.empty()) {
    groups.emplace_back();
    for (const NamedParameter& parameter : rest) {
      if (parameter.tensor.requires_grad()) {
        groups[0].push_back(parameter);
      }
    }
  }
  for (const ParamGroup& group : wanted) {
    groups.emplace_back();
    for (const at::Tensor& tensor : group.parameters) {
      const auto found =
          std::find_if(rest.begin(), rest.end(), [&](const auto& parameter) {
            return parameter.tensor.is_same(tensor);
          });
      if (found == rest.end()) {
        throw config_error(
            "a param group holds a tensor that is no parameter of the module",
            "take the tensors of module->parameters()");
      }
      for (const auto& other : groups) {
        for (const NamedParameter& parameter : other) {
          if (parameter.tensor.is_same(tensor)) {
            throw config_error(
                "parameter " + parameter.name + " is in two param groups",
                "leave it in one of them");
          }
        }
      }
      if (tensor.requires_grad()) {
        groups.back().push_back(*found);
      }
    }
  }
  std::erase_if(rest, [&](const NamedParameter& parameter) {
    return std::any_of(groups.begin(), groups.end(), [&](const auto& group) {
      return std::any_of(group.begin(), group.end(), [&](const auto& member) {
        return member.tensor.is_same(parameter.tensor);
      });
    });
  });
  return groups;
}

// Ties that moving would undo are refused. Returns where the parameters lie.
flat::OldPlaces check_memory(
    const torch::nn::Module& module,
    const std::vector<NamedParameters>& groups,
    const NamedParameters& rest) {
  NamedParameters moving;
  for (const NamedParameters& group : groups) {
    moving.insert(moving.end(), group.begin(), group.end());
  }
  NamedParameters staying = rest;
  for (const auto& buffer : module.named_buffers()) {
    staying.push_back({"buffer " + buffer.key(), buffer.value()});
  }
  flat::refuse_shared_elements(moving, staying);
  return flat::OldPlaces(moving);
}

std::unique_ptr<optim::ShardOptimizer> make_optimizer(
    const EngineState& state,
    const zero::FlatGroup& group,
    const GroupSettings& settings) {
  const config::OptimizerParams& params = state.config.optimizer.params;
  switch (state.config.optimizer.type) {
    case config::OptimizerType::adam:
    case config::OptimizerType::adamw:
      return optim::make_shard_adam(
          group.master(),
          {params.eps,
           settings.weight_decay,
           params.adam_w_mode ||
               state.config.optimizer.type == config::OptimizerType::adamw,
           params.bias_correction});
    case config::OptimizerType::sgd:
      return optim::make_shard_sgd(
          group.master(),
          {params.momentum != 0,
           params.dampening,
           settings.weight_decay,
           params.nesterov});
    case config::OptimizerType::lamb: {
      optim::ShardLambOptions options;
      options.eps = params.eps;
      options.weight_decay = settings.weight_decay;
      options.bias_correction = params.bias_correction;
      options.max_coeff = params.max_coeff;
      options.min_coeff = params.min_coeff;
      options.parameters = static_cast<int64_t>(group.entries().size());
      options.pieces = zero::pieces_of(group, group.shard());
      options.counted = zero::pieces_of(group, group.counted());
      options.sum_over_ranks = [ranks = state.ranks](at::Tensor& sums) {
        ranks->all_reduce(sums, comm::ReduceOp::sum)->wait();
      };
      return optim::make_shard_lamb(group.master(), std::move(options));
    }
    case config::OptimizerType::none:
      break;
  }
  throw config_error(
      "the configuration names no optimizer",
      "add \"optimizer\": {\"type\": \"Adam\", \"params\": {\"lr\": 1e-4}}");
}

GroupSettings group_settings(
    const config::OptimizerParams& params,
    config::OptimizerType type,
    const ParamGroup* group) {
  const bool sgd = type == config::OptimizerType::sgd;
  GroupSettings settings;
  settings.lr = group != nullptr ? group->lr.value_or(params.lr) : params.lr;
  settings.weight_decay = group != nullptr
      ? group->weight_decay.value_or(params.weight_decay)
      : params.weight_decay;
  settings.beta1 = sgd ? params.momentum : params.betas[0];
  settings.beta2 = sgd ? 0 : params.betas[1];
  return settings;
}

// What is not trained: parameters outside the groups, and buffers.
void share_rest(EngineState& state, NamedParameters rest) {
  const at::NoGradGuard no_grad;
  for (NamedParameter& frozen : rest) {
    check_storable("parameter", frozen.name, frozen.tensor);
    broadcast(frozen.tensor, *state.ranks);
    if (at::isFloatingType(frozen.tensor.scalar_type())) {
      frozen.tensor.set_data(frozen.tensor.to(state.placement.compute_dtype));
    }
  }
  for (const auto& item : state.module->named_buffers()) {
    at::Tensor buffer = item.value();
    check_storable("buffer", item.key(), buffer);
    broadcast(buffer, *state.ranks);
  }
  state.rest = std::move(rest);
}

// Those that do not require a gradient, and are in a param group or, where the
// program gives none, would be.
NamedParameters frozen_of(
    const NamedParameters& rest,
    const std::vector<ParamGroup>& groups) {
  const auto is_wanted = [&](const at::Tensor& tensor) {
    return groups.empty() ||
        std::any_of(groups.begin(), groups.end(), [&](const ParamGroup& group) {
             return std::any_of(
                 group.parameters.begin(),
                 group.parameters.end(),
                 [&](const at::Tensor& other) {
                   return other.is_same(tensor);
                 });
           });
  };
  NamedParameters frozen;
  for (const NamedParameter& parameter : rest) {
    if (!parameter.tensor.requires_grad() && is_wanted(parameter.tensor)) {
      frozen.push_back(parameter);
    }
  }
  return frozen;
}

void warn_of_views(const EngineState& state, flat::OldPlaces& old_places) {
  const std::vector<std::string> viewed = old_places.still_used();
  if (!viewed.empty() && state.ranks->rank() == 0) {
    base::log_warning(
        "a view that was made before initialize() keeps the old weights, "
        "training does not reach it: of " +
        flat::shortened(viewed));
  }
}

void build_groups(EngineState& state) {
  NamedParameters rest = flat::distinct_parameters(*state.module);
  auto members = grouped(rest, state.options.param_groups);
  state.frozen = frozen_of(rest, state.options.param_groups);
  flat::OldPlaces old_places = check_memory(*state.module, members, rest);
  choose_device(state, members);
  std::vector<std::unique_ptr<optim::ShardOptimizer>> optimizers;
  for (size_t i = 0; i < members.size(); ++i) {
    std::erase_if(members[i], [&](const NamedParameter& parameter) {
      const bool empty = parameter.tensor.numel() == 0;
      if (empty) {
        rest.push_back(parameter);
      }
      return empty;
    });
    if (members[i].empty()) {
      continue;
    }
    for (const NamedParameter& parameter : members[i]) {
      check_parameter(state, parameter);
      broadcast(parameter.tensor, *state.ranks);
    }
    state.groups.push_back(std::make_unique<zero::FlatGroup>(
        std::move(members[i]), state.placement));
    state.settings.push_back(group_settings(
        state.config.optimizer.params,
        state.config.optimizer.type,
        state.options.param_groups.empty() ? nullptr
                                           : &state.options.param_groups[i]));
    optimizers.push_back(
        make_optimizer(state, *state.groups.back(), state.settings.back()));
  }
  if (state.groups.empty()) {
    throw config_error(
        "the module has no parameter that requires a gradient",
        "unfreeze some: parameter.requires_grad_(true)");
  }
  share_rest(state, std::move(rest));
  members.clear(); // before it is looked who else uses the old memory
  warn_of_views(state, old_places);
  state.optimizer = std::make_unique<zero::ShardedOptimizer>(
      state.groups,
      std::move(optimizers),
      *state.ranks,
      state.config.zero_optimization.allgather_bucket_size);
}

// A module with fused blocks writes gradients to the slots by itself.
void bind_direct_gradients(EngineState& state) {
  flat::bind_slots(
      *state.module, [&](const at::Tensor& parameter) -> flat::GradientSlot* {
        for (const auto& group : state.groups) {
          if (flat::FlatEntry* entry = group->order().find(parameter)) {
            return &entry->slot;
          }
        }
        return nullptr;
      });
}

std::shared_ptr<comm::ProcessGroup> joined(const InitializeOptions& options) {
  if (!options.ranks) {
    return comm::make_process_group(
        comm::rank_from_environment(), {.transport = options.dist_backend});
  }
  if (!options.dist_backend.empty()) {
    throw std::invalid_argument(
        "dist_backend with ranks that are joined already");
  }
  return options.ranks;
}

// Joins the ranks, which the configuration is read for.
config::Context context_of(InitializeOptions& options) {
  options.ranks = joined(options);
  options.dist_backend.clear();
  config::Context context;
  context.world_size = options.ranks->size();
  return context;
}

} // namespace

double predivide_factor(const config::Config& config, int ranks) {
  return config.prescale_gradients ? ranks : config.gradient_predivide_factor;
}

at::ScalarType scalar_type(config::Dtype dtype) {
  switch (dtype) {
    case config::Dtype::fp32:
      return at::kFloat;
    case config::Dtype::fp16:
      return at::kHalf;
    case config::Dtype::bf16:
      return at::kBFloat16;
  }
  return at::kFloat;
}

void build(EngineState& state) {
  const config::Config& config = state.config;
  state.placement.stage = config.zero_optimization.stage;
  state.placement.compute_dtype = scalar_type(config.dtype());
  state.placement.whole_gradients = config.keeps_whole_gradients();
  state.placement.ranks = state.ranks.get();
  build_groups(state);
  bind_direct_gradients(state);

  zero::ReducerOptions options;
  options.bucket_size = config.zero_optimization.reduce_bucket_size;
  options.overlap = config.zero_optimization.overlap_comm.value_or(true);
  options.reduce_scatter = config.zero_optimization.reduce_scatter;
  options.predivide = predivide_factor(config, state.ranks->size());
  if (config.communication_data_type) {
    options.wire_dtype = scalar_type(*config.communication_data_type);
  }
  state.reducer = std::make_unique<zero::GradientReducer>(
      state.groups, *state.ranks, options);
  state.loss_scaler = std::make_unique<optim::LossScaler>(config.fp16);
  if (config.scheduler.type != config::SchedulerType::none) {
    std::vector<double> lrs;
    for (const GroupSettings& settings : state.settings) {
      lrs.push_back(settings.lr);
    }
    state.scheduler =
        std::make_unique<optim::LrScheduler>(config.scheduler, std::move(lrs));
  }
  state.clock.begin_forward();
}

Engine initialize(
    std::shared_ptr<torch::nn::Module> module,
    config::Config config,
    InitializeOptions options) {
  auto state = std::make_unique<EngineState>();
  state->module = std::move(module);
  state->ranks = joined(options);
  state->config = std::move(config);
  state->options = std::move(options);
  if (state->ranks->rank() == 0) {
    for (const std::string& warning : state->config.warnings) {
      base::log_warning(warning);
    }
    if (state->config.dump_state) {
      base::log_info("configuration:\n" + print_config(state->config));
    }
  }
  check_settings(*state);
  state->ranks->require_equal("the configuration", print_config(state->config));
  build(*state);
  comm::agree(*state->ranks, [&] {
    const config::Config& given = state->config;
    if (state->ranks->rank() == 0 &&
        (given.tensorboard.enabled || given.csv_monitor.enabled)) {
      state->curves.monitor =
          std::make_unique<Monitor>(given.tensorboard, given.csv_monitor);
    }
  });
  return Engine(std::move(state));
}

Engine initialize(
    std::shared_ptr<torch::nn::Module> module,
    const std::string& config_path,
    InitializeOptions options) {
  const config::Context context = context_of(options);
  return initialize(
      std::move(module),
      config::read_config(config_path, context),
      std::move(options));
}

Engine initialize_with_json(
    std::shared_ptr<torch::nn::Module> module,
    const base::Json& config,
    InitializeOptions options) {
  const config::Context context = context_of(options);
  return initialize(
      std::move(module),
      config::parse_config(config, "the configuration", context),
      std::move(options));
}

} // namespace deepspeed
