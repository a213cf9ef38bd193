// Loading DeepSpeed's checkpoints into an engine of any stage and rank count.
#include <algorithm>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/engine/state.h"
#include "deepspeed/flat/file_tensor.h"

namespace deepspeed {
namespace {

using checkpoint::ZeroCheckpoint;

constexpr const char* kOtherModel =
    "this checkpoint belongs to another model: use the settings it was trained "
    "with";

// One piece of a group's shard and its parameter.
struct Piece {
  std::string parameter;
  int64_t in_parameter = 0;
  int64_t in_shard = 0;
  int64_t numel = 0;
};

std::vector<Piece> pieces(const zero::FlatGroup& group) {
  std::vector<Piece> result;
  for (const flat::FlatEntry& entry : group.entries()) {
    const checkpoint::Overlap own =
        checkpoint::overlap_of(group.shard(), entry.offset, entry.numel);
    if (own.numel > 0) {
      result.push_back({entry.name, own.in_parameter, own.in_shard, own.numel});
    }
  }
  return result;
}

// Names and tensors of the module: parameters and buffers.
std::vector<std::pair<std::string, at::Tensor>> module_tensors(
    const torch::nn::Module& module) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& item : module.named_parameters()) {
    tensors.emplace_back(item.key(), item.value());
  }
  for (const auto& item : module.named_buffers()) {
    tensors.emplace_back(item.key(), item.value());
  }
  return tensors;
}

// Names that only the module has (`missing`) or only the file (`unexpected`).
// Error(data) for a shape that differs.
void compare_module(
    const EngineState& state,
    const ZeroCheckpoint& file,
    const LoadOptions& options,
    LoadedCheckpoint& loaded) {
  std::unordered_set<std::string> known;
  for (const auto& [name, tensor] : module_tensors(*state.module)) {
    known.insert(name);
    const formats::Tensor* saved = file.find_module(name);
    if (saved == nullptr) {
      loaded.missing.push_back(name);
      continue;
    }
    if (tensor.sizes() != at::IntArrayRef(saved->sizes)) {
      throw base::Error(
          base::ExitCode::data,
          "'" + name + "' is " + formats::describe(*saved) +
              " in the checkpoint, but " +
              formats::describe(flat::FileTensors().add(tensor)) +
              " in the model",
          file.path(),
          kOtherModel);
    }
    flat::require_fit(*saved, file.path() + ": " + name, tensor);
  }
  for (const auto& [name, tensor] : options.derived) {
    known.insert(name);
    if (const formats::Tensor* saved = file.find_module(name)) {
      flat::check_equal(*saved, file.path() + ": " + name, tensor);
    }
  }
  for (const auto& [alias, owner] : file.shared()) {
    known.insert(alias);
  }
  for (const formats::NamedTensor& saved : file.module()) {
    if (!known.contains(saved.name)) {
      loaded.unexpected.push_back(saved.name);
    }
  }
}

void require_same(const ZeroCheckpoint& file, const LoadedCheckpoint& loaded) {
  if (!loaded.missing.empty()) {
    throw base::Error(
        base::ExitCode::data,
        "the checkpoint has no tensor '" + loaded.missing[0] + "'",
        file.path(),
        kOtherModel);
  }
  if (!loaded.unexpected.empty()) {
    throw base::Error(
        base::ExitCode::data,
        "the checkpoint has a tensor '" + loaded.unexpected[0] +
            "' that the model does not have",
        file.path(),
        kOtherModel);
  }
}

// "a, b and 7 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 20;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return names.size() <= kShown
      ? text
      : text + " and " + std::to_string(names.size() - kShown) + " more";
}

// What was not loaded, in words.
void report_rest(const ZeroCheckpoint& file, const LoadedCheckpoint& loaded) {
  if (!loaded.missing.empty()) {
    base::log_warning(
        "not in the checkpoint, so they keep their values and begin without "
        "optimizer states: " +
        listed(loaded.missing));
  }
  if (!loaded.unexpected.empty()) {
    base::log_warning(
        "in the checkpoint, but not in the model: " +
        listed(loaded.unexpected));
  }
  if (!file.dropped().empty()) {
    base::log_warning(
        "left out of the client state, as their classes are not known here: " +
        listed(file.dropped()));
  }
}

// Names of the parameters that the checkpoint has fp32 weights of.
bool in_groups(const ZeroCheckpoint& file, const std::string& name) {
  for (const checkpoint::ZeroGroup& group : file.topology().groups) {
    for (const checkpoint::ZeroParameter& parameter : group.parameters) {
      if (parameter.name == name) {
        return true;
      }
    }
  }
  return false;
}

// A parameter that is new (not in the checkpoint at all) is not looked for.
void check_optimizer(const EngineState& state, const ZeroCheckpoint& file) {
  for (size_t i = 0; i < state.groups.size(); ++i) {
    for (const flat::FlatEntry& entry : state.groups[i]->entries()) {
      if (!in_groups(file, entry.name) &&
          file.find_module(entry.name) != nullptr) {
        throw base::Error(
            base::ExitCode::data,
            "the checkpoint has no optimizer state of '" + entry.name + "'",
            file.path(),
            "it was frozen there: freeze it here, or load without the states "
            "of the optimizer (optimizer_states = false)");
      }
    }
    const auto& saved = file.state_names();
    const auto& own = state.optimizer->optimizers()[i]->states();
    for (const optim::NamedState& named : own) {
      if (!saved.empty() &&
          std::find(saved.begin(), saved.end(), named.name) == saved.end()) {
        std::string names;
        for (const std::string& name : saved) {
          names += " " + name;
        }
        throw base::Error(
            base::ExitCode::config,
            "the checkpoint was written by another optimizer: it has" + names +
                ", this one needs " + named.name,
            file.path(),
            "use the same optimizer type, or load the module only");
      }
    }
  }
}

void load_masters(
    EngineState& state,
    const ZeroCheckpoint& file,
    bool from_fp32) {
  for (const auto& group : state.groups) {
    float* master = group->master().data_ptr<float>();
    for (const Piece& piece : pieces(*group)) {
      if (from_fp32 && in_groups(file, piece.parameter)) {
        file.read_fp32(
            piece.parameter,
            piece.in_parameter,
            piece.in_parameter + piece.numel,
            master + piece.in_shard);
        continue;
      }
      const formats::Tensor* saved = file.find_module(piece.parameter);
      if (saved != nullptr) {
        at::Tensor whole = at::empty(saved->sizes, at::kFloat);
        flat::copy_from_file(*saved, piece.parameter, whole);
        group->master()
            .narrow(0, piece.in_shard, piece.numel)
            .copy_(whole.view({-1}).narrow(0, piece.in_parameter, piece.numel));
      }
    }
    group->refresh_own();
  }
  state.optimizer->gather_weights();
}

// Frozen parameters and buffers, which no group holds.
void load_rest(EngineState& state, const ZeroCheckpoint& file) {
  const auto copy = [&](const std::string& name, at::Tensor tensor) {
    const formats::Tensor* saved = file.find_module(name);
    if (saved != nullptr) {
      flat::copy_from_file(*saved, file.path() + ": " + name, tensor);
    }
  };
  for (const flat::NamedParameter& parameter : state.rest) {
    copy(parameter.name, parameter.tensor);
  }
  for (const auto& item : state.module->named_buffers()) {
    copy(item.key(), item.value());
  }
}

void load_optimizer(EngineState& state, const ZeroCheckpoint& file) {
  for (size_t i = 0; i < state.groups.size(); ++i) {
    optim::ShardOptimizer& optimizer = *state.optimizer->optimizers()[i];
    int64_t steps = 0;
    for (const flat::FlatEntry& entry : state.groups[i]->entries()) {
      if (in_groups(file, entry.name)) {
        steps = std::max(steps, file.step(entry.name));
      }
    }
    // torch's SGD counts no steps.
    if (steps == 0 && !file.state_names().empty()) {
      steps = file.global_steps() - file.skipped_steps();
    }
    optimizer.set_steps(steps);
    for (const optim::NamedState& named : optimizer.states()) {
      named.tensor.zero_();
      if (file.state_names().empty()) {
        continue;
      }
      for (const Piece& piece : pieces(*state.groups[i])) {
        if (!in_groups(file, piece.parameter)) {
          continue; // a new parameter
        }
        file.read_state(
            named.name,
            piece.parameter,
            piece.in_parameter,
            piece.in_parameter + piece.numel,
            named.tensor.data_ptr<float>() + piece.in_shard);
      }
    }
  }
}

void load_loss_scaler(EngineState& state, const ZeroCheckpoint& file) {
  const checkpoint::LossScalerState& saved = file.loss_scaler();
  if (!saved.dynamic || !state.config.dynamic_loss_scale()) {
    return; // a fixed scale is the configuration's
  }
  optim::LossScaler::State scaler = state.loss_scaler->state();
  scaler.scale = saved.scale;
  scaler.iteration = saved.iteration;
  scaler.last_overflow = saved.last_overflow;
  scaler.hysteresis = saved.hysteresis_left;
  state.loss_scaler->set_state(scaler);
}

// The configuration wins over what the checkpoint was trained with, and says
// so.
void report_changes(const EngineState& state, const ZeroCheckpoint& file) {
  if (state.ranks->rank() != 0) {
    return;
  }
  const auto say = [](const std::string& name, double saved, double given) {
    if (saved != given) {
      char text[160];
      std::snprintf(
          text,
          sizeof text,
          "changed: %s %.9g -> %.9g",
          name.c_str(),
          saved,
          given);
      base::log_info(text);
    }
  };
  const formats::DType of_file = file.topology().dtype;
  const std::string saved_dtype = config::dtype_name(
      of_file == formats::DType::float16        ? config::Dtype::fp16
          : of_file == formats::DType::bfloat16 ? config::Dtype::bf16
                                                : config::Dtype::fp32);
  const std::string dtype = config::dtype_name(state.config.dtype());
  if (saved_dtype != dtype) {
    base::log_info("changed: dtype " + saved_dtype + " -> " + dtype);
  }
  if (file.clip_grad() >= 0) {
    say("gradient_clipping", file.clip_grad(), state.config.gradient_clipping);
  }
  const auto& groups = file.topology().groups;
  for (size_t i = 0; i < std::min(groups.size(), state.groups.size()); ++i) {
    const std::string prefix = "param group " + std::to_string(i) + " ";
    const auto compare = [&](const char* name, double given) {
      const formats::Value* value = groups[i].hyperparameters.find(name);
      if (value == nullptr) {
        return;
      }
      if (const auto* real = value->get_if<double>()) {
        say(prefix + name, *real, given);
      } else if (const auto* integer = value->get_if<int64_t>()) {
        say(prefix + name, static_cast<double>(*integer), given);
      }
    };
    if (state.scheduler == nullptr && !state.options.learning_rate) {
      compare("lr", state.settings[i].lr);
    }
    compare("weight_decay", state.settings[i].weight_decay);
    compare("eps", state.config.optimizer.params.eps);
  }
}

// Rank 0 looks for the checkpoint and checks every byte; the others open what
// it found.
ZeroCheckpoint open_together(
    EngineState& state,
    const std::string& folder,
    const LoadOptions& how) {
  const std::string& tag = how.tag;
  std::optional<ZeroCheckpoint> file;
  checkpoint::ZeroOpenOptions options;
  options.new_parameters = !how.module_strict;
  options.newest_whole = true;
  for (const auto& group : state.groups) {
    options.stage0_groups.emplace_back();
    for (const flat::FlatEntry& entry : group->entries()) {
      options.stage0_groups.back().push_back(entry.name);
    }
  }
  comm::agree_at_root(*state.ranks, [&] {
    file = ZeroCheckpoint::open(folder, tag, options);
    for (const std::string& line : file->skipped()) {
      base::log_warning("passed over a checkpoint: " + line);
    }
    if (!file->skipped().empty()) {
      base::log_warning("taken in its place: " + file->path());
    }
    for (const std::string& line : file->notes()) {
      base::log_warning(line);
    }
  });
  const std::string found =
      state.ranks->broadcast_text(file ? file->tag() : "", 0);
  comm::agree(*state.ranks, [&] {
    if (!file) {
      options.verify = false;
      file = ZeroCheckpoint::open(folder, found, options);
    }
  });
  return *file;
}

// Rank 0's lines.
std::vector<std::string> same_on_all(
    comm::ProcessGroup& ranks,
    const std::vector<std::string>& lines) {
  const std::string text = ranks.broadcast_text(base::Json(lines).dump(), 0);
  return base::Json::parse(text).get<std::vector<std::string>>();
}

} // namespace

LoadedCheckpoint Engine::load_checkpoint(
    const std::string& folder,
    const LoadOptions& options) {
  EngineState& state = *state_;
  check_parameters(state);
  const ZeroCheckpoint file = open_together(state, folder, options);
  const bool optimizer = options.optimizer_states && !options.module_only;
  LoadedCheckpoint loaded{file.path(), file.client_state()};
  loaded.ranks = file.topology().ranks;
  comm::agree(*state.ranks, [&] {
    compare_module(state, file, options, loaded);
    if (options.module_strict) {
      require_same(file, loaded);
    }
    if (optimizer) {
      check_optimizer(state, file);
    }
  });
  const at::NoGradGuard no_grad;
  load_masters(state, file, optimizer);
  load_rest(state, file);
  state.forget_gradients();
  if (loaded.missing.empty()) {
    state.checks.changes = 0; // what a rank changed is overwritten
  }
  if (!options.module_only) {
    state.progress.global_steps = file.global_steps();
    state.progress.skipped_steps = file.skipped_steps();
    state.progress.global_samples = file.global_samples() >= 0
        ? file.global_samples()
        : state.progress.global_steps * state.config.train_batch_size;
    state.progress.micro_steps =
        state.progress.global_steps * state.config.gradient_accumulation_steps;
    state.progress.skipped = {};
    if (state.curves.monitor) {
      state.curves.monitor->start_after(state.progress.global_samples);
    }
  }
  if (optimizer) {
    load_optimizer(state, file);
    load_loss_scaler(state, file);
    report_changes(state, file);
  }
  if (options.lr_scheduler_states && !options.module_only) {
    const formats::Value* iteration =
        file.lr_scheduler().find("last_batch_iteration");
    if (state.scheduler != nullptr && iteration != nullptr &&
        iteration->get_if<int64_t>() != nullptr) {
      state.scheduler->set_last_batch_iteration(*iteration->get_if<int64_t>());
    }
  }
  set_learning_rates(state);
  state.clock.begin_forward();
  loaded.passed_over = same_on_all(*state.ranks, file.skipped());
  if (state.ranks->rank() == 0) {
    report_rest(file, loaded);
  }
  return loaded;
}

} // namespace deepspeed
