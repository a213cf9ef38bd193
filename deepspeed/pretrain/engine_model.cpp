// The model of train_bert_ds, seen as files see it.
#include "deepspeed/pretrain/engine_model.h"

#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/formats/field.h"
#include "deepspeed/pretrain/derived_buffers.h"
#include "deepspeed/pretrain/engine_config.h"

namespace deepspeed::pretrain {
namespace {

using formats::Value;

constexpr const char* kOwnKey = "train_bert_ds";
constexpr int64_t kFormatVersion = 1;

// What was taken, if it is not plainly what was asked for.
void log_choice(const checkpoint::ZeroCheckpoint& file) {
  for (const std::string& line : file.skipped()) {
    base::log_warning("passed over a checkpoint: " + line);
  }
  if (!file.skipped().empty()) {
    base::log_warning("taken in its place: " + file.path());
  }
  for (const std::string& line : file.notes()) {
    base::log_warning(line);
  }
}

} // namespace

void EngineModel::save(const std::string& folder, const LoopState& state) {
  Value own = formats::make_dict();
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

LoadedState EngineModel::load(const checkpoint::CheckpointPath& path) {
  LoadOptions options;
  options.tag = path.name;
  for (auto& [name, tensor] : derived_buffers(model_->config())) {
    options.derived.emplace_back(name, tensor);
  }
  const LoadedCheckpoint loaded = engine_.load_checkpoint(path.folder, options);
  client_state_ = loaded.client_state;
  LoadedState result;
  result.name = std::filesystem::path(loaded.path).filename().string();
  result.passed_over = loaded.passed_over;
  LoopState& state = result.loop;
  // HelloDeepSpeed's checkpoint_step is one too many in its last checkpoint;
  // the engine counts its own steps.
  state.step = engine_.global_steps();
  const formats::Field client(loaded.client_state, loaded.path);
  const auto own = client.find(kOwnKey);
  // The Python program has none of ours, or passes on what it was given.
  if (!own || own->at("step").integer() != state.step) {
    state.samples = engine_.global_samples();
    return result;
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
    for (const settings::SettingChange& change : config_changes(
             saved->string(), config::print_config(engine_.config()))) {
      base::log_info(
          "changed: " + change.name + " " + change.from + " -> " + change.to);
    }
  }
  return result;
}

std::vector<bert::NamedTensor> EngineModel::weights() const {
  std::vector<bert::NamedTensor> weights;
  for (auto& [name, tensor] : engine_.fp32_parameters()) {
    weights.push_back({name, tensor});
  }
  return weights;
}

bool EngineModel::is_finite() const {
  return engine_.is_finite();
}

std::string EngineModel::checkpoint_name(int64_t step) const {
  return checkpoint::default_tag(step);
}

void load_engine_checkpoint_weights(
    const checkpoint::CheckpointPath& path,
    bool newest_whole,
    bert::RobertaForMaskedLMImpl& model) {
  checkpoint::ZeroOpenOptions options;
  options.newest_whole = newest_whole;
  const auto file = checkpoint::ZeroCheckpoint::open(path.text(), "", options);
  log_choice(file);
  require_known_names(file.module(), model, file.path());
  const at::NoGradGuard no_grad;
  for (const auto& item : model.named_parameters()) {
    const formats::Tensor* saved = file.find_module(item.key());
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
