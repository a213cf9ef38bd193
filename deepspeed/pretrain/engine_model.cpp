// The model of train_bert_ds, seen as files see it.
#include "deepspeed/pretrain/engine_model.h"

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/field.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/pretrain/derived_buffers.h"
#include "deepspeed/pretrain/engine_config.h"

namespace deepspeed::pretrain {
namespace {

using checkpoint::Value;

constexpr const char* kOwnKey = "train_bert_ds";
constexpr int64_t kFormatVersion = 1;

} // namespace

void EngineModel::save(const std::string& folder, const LoopState& state) {
  Value own = checkpoint::make_dict();
  own.set("format_version", kFormatVersion);
  own.set("step", state.step);
  own.set("loss_sum", state.loss_sum);
  own.set("loss_count", state.loss_count);
  own.set("samples", state.samples);
  own.set("config", config::print_config(engine_.config()));
  SaveOptions options;
  options.keep_last = keep_last_;
  options.client_state = client_state_;
  options.client_state.set("checkpoint_step", state.step);
  options.client_state.set(kOwnKey, std::move(own));
  engine_.save_checkpoint(folder, options);
}

LoopState EngineModel::load(const std::string& folder) {
  LoadOptions options;
  for (auto& [name, tensor] : derived_buffers(model_->config())) {
    options.derived.emplace_back(name, tensor);
  }
  const LoadedCheckpoint loaded = engine_.load_checkpoint(folder, options);
  client_state_ = loaded.client_state;
  LoopState state;
  // HelloDeepSpeed's checkpoint_step is one too many in its last checkpoint;
  // the engine counts its own steps.
  state.step = engine_.global_steps();
  const checkpoint::Field client(loaded.client_state, loaded.path);
  const auto own = client.find(kOwnKey);
  // The Python program has none of ours, or passes on what it was given.
  if (!own || own->at("step").integer() != state.step) {
    state.samples = engine_.global_samples();
    return state;
  }
  const int64_t version = own->at("format_version").integer();
  if (version != kFormatVersion) {
    own->fail(
        "format version " + std::to_string(version) + ", this program reads " +
        std::to_string(kFormatVersion));
  }
  state.loss_sum = own->at("loss_sum").real();
  state.loss_count = own->at("loss_count").integer();
  state.ranks = loaded.ranks;
  if (const auto samples = own->find("samples")) {
    state.samples = samples->integer();
    if (state.samples < 0) {
      samples->fail("the number of samples is negative");
    }
  }
  if (const auto saved = own->find("config")) {
    for (const report::SettingChange& change : config_changes(
             saved->string(), config::print_config(engine_.config()))) {
      base::log_info(
          "changed: " + change.name + " " + change.from + " -> " + change.to);
    }
  }
  return state;
}

std::vector<bert::NamedTensor> EngineModel::weights() const {
  std::vector<bert::NamedTensor> weights;
  for (auto& [name, tensor] : engine_.fp32_parameters()) {
    weights.push_back({name, tensor});
  }
  return weights;
}

std::string EngineModel::checkpoint_name(int64_t step) const {
  return checkpoint::default_tag(step);
}

void load_engine_checkpoint_weights(
    const std::string& folder,
    bert::RobertaForMaskedLMImpl& model) {
  const auto file = checkpoint::ZeroCheckpoint::open(folder);
  for (const std::string& line : file.skipped()) {
    base::log_warning("passed over a checkpoint: " + line);
  }
  require_known_names(file.module(), model, file.path());
  const at::NoGradGuard no_grad;
  for (const auto& item : model.named_parameters()) {
    const checkpoint::Tensor* saved = file.find_module(item.key());
    if (saved == nullptr ||
        item.value().sizes() != at::IntArrayRef(saved->sizes)) {
      throw base::Error(
          base::ExitCode::data,
          "the checkpoint's '" + item.key() + "' does not fit the model",
          file.path(),
          "this checkpoint belongs to another model");
    }
    file.read_fp32(
        item.key(), 0, item.value().numel(), item.value().data_ptr<float>());
  }
}

} // namespace deepspeed::pretrain
