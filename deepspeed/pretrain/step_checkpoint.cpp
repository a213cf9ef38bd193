// checkpoint.iter_N.pt: all that train_bert needs to go on.
#include "deepspeed/pretrain/step_checkpoint.h"

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/formats/torch_file.h"
#include "deepspeed/pretrain/derived_buffers.h"

namespace deepspeed::pretrain {
namespace {

using formats::Value;

constexpr const char* kOwnKey = "deepspeed_cpp";
constexpr const char* kSamplesKey = "samples";
constexpr int64_t kFormatVersion = 1;

base::Error unfit(const std::string& what, const std::string& path) {
  return base::Error(
      base::ExitCode::data,
      what,
      path,
      "this checkpoint belongs to another model or another program");
}

const Value& at(
    const Value& dict,
    std::string_view key,
    const std::string& path) {
  const Value* found = dict.find(key);
  if (found == nullptr) {
    throw unfit("the checkpoint has no '" + std::string(key) + "'", path);
  }
  return *found;
}

const formats::Tensor& tensor_at(
    const Value& dict,
    const std::string& key,
    const std::string& path) {
  const formats::Tensor* tensor = at(dict, key, path).tensor();
  if (tensor == nullptr) {
    throw unfit("'" + key + "' is not a tensor", path);
  }
  return *tensor;
}

// A Python number, or a tensor of one element (torch.optim.Adam's "step").
double number_at(
    const Value& dict,
    const std::string& key,
    const std::string& path) {
  const Value& value = at(dict, key, path);
  if (const auto* integer = value.get_if<int64_t>()) {
    return static_cast<double>(*integer);
  }
  if (const auto* real = value.get_if<double>()) {
    return *real;
  }
  if (value.tensor() != nullptr && value.tensor()->numel() == 1) {
    at::Tensor scalar = at::empty(value.tensor()->sizes, at::kDouble);
    flat::copy_from_file(*value.tensor(), path + ": " + key, scalar);
    return scalar.item<double>();
  }
  throw unfit(
      "'" + key + "' should be a number, but is " + describe(value), path);
}

Value model_value(
    const std::vector<bert::NamedTensor>& entries,
    const flat::FlatParameters& parameters,
    flat::FileTensors& tensors) {
  Value model = formats::make_ordered_dict();
  for (const bert::NamedTensor& entry : entries) {
    for (const flat::FlatEntry& flat : parameters.entries()) {
      if (flat.parameter.is_same(entry.tensor)) {
        model.set(entry.name, tensors.add(parameters.master(flat)));
      }
    }
  }
  return model;
}

// torch.optim.Adam's state_dict().
Value optimizer_value(
    const optim::Adam& optimizer,
    flat::FileTensors& tensors) {
  Value state = formats::make_dict();
  formats::List order;
  for (const optim::AdamParameterState& parameter : optimizer.state()) {
    const auto index = static_cast<int64_t>(order.size());
    order.emplace_back(index);
    if (parameter.step == 0) {
      continue; // as in torch: no gradient yet, no state
    }
    Value entry = formats::make_dict();
    entry.set(
        "step",
        tensors.add(
            at::full({}, static_cast<double>(parameter.step), at::kFloat)));
    entry.set("exp_avg", tensors.add(parameter.exp_avg));
    entry.set("exp_avg_sq", tensors.add(parameter.exp_avg_sq));
    state.set(index, std::move(entry));
  }
  const optim::AdamOptions& options = optimizer.options();
  Value group = formats::make_dict();
  group.set("lr", optimizer.last_learning_rate());
  group.set("betas", formats::Tuple{{options.beta1, options.beta2}});
  group.set("eps", options.eps);
  group.set("weight_decay", options.weight_decay);
  group.set("amsgrad", false);
  group.set("maximize", false);
  group.set("foreach", Value());
  group.set("capturable", false);
  group.set("differentiable", false);
  group.set("fused", Value());
  group.set("decoupled_weight_decay", options.decoupled_weight_decay);
  group.set("params", std::move(order));
  Value value = formats::make_dict();
  value.set("state", std::move(state));
  value.set("param_groups", formats::List{std::move(group)});
  return value;
}

void load_model(
    const Value& saved_model,
    const bert::RobertaForMaskedLMImpl& model,
    flat::FlatParameters& parameters,
    const std::string& path) {
  const auto* dict = saved_model.get_if<formats::Dict>();
  if (dict == nullptr) {
    throw unfit("'model' is not a dict", path);
  }
  std::vector<formats::NamedTensor> tensors;
  for (const formats::DictEntry& entry : dict->entries) {
    const auto* name = entry.key.get_if<std::string>();
    if (name == nullptr) {
      throw unfit("a tensor's name is " + describe(entry.key), path);
    }
    const formats::Tensor* tensor = entry.value.tensor();
    if (tensor == nullptr) {
      throw unfit("'" + *name + "' is not a tensor", path);
    }
    tensors.push_back({*name, *tensor});
  }
  require_known_names(tensors, model, path);
  for (const bert::NamedTensor& entry : model.state_dict_entries()) {
    // Also the tied entries, for their shapes; both hold the same values.
    const formats::Tensor& saved = tensor_at(saved_model, entry.name, path);
    for (flat::FlatEntry& flat : parameters.entries()) {
      if (flat.parameter.is_same(entry.tensor)) {
        flat::copy_from_file(
            saved, path + ": " + entry.name, parameters.master(flat));
      }
    }
  }
  parameters.refresh_compute();
}

void load_optimizer(
    const Value& value,
    optim::Adam& optimizer,
    const std::string& path) {
  const Value& state = at(value, "state", path);
  auto& parameters = optimizer.state();
  for (size_t i = 0; i < parameters.size(); ++i) {
    optim::AdamParameterState& parameter = parameters[i];
    const Value* saved = state.find(static_cast<int64_t>(i));
    if (saved == nullptr) {
      parameter.step = 0;
      parameter.exp_avg.zero_();
      parameter.exp_avg_sq.zero_();
      continue;
    }
    const std::string name = path + ": optimizer state " + std::to_string(i);
    parameter.step = static_cast<int64_t>(number_at(*saved, "step", path));
    flat::copy_from_file(
        tensor_at(*saved, "exp_avg", path), name, parameter.exp_avg);
    flat::copy_from_file(
        tensor_at(*saved, "exp_avg_sq", path), name, parameter.exp_avg_sq);
  }
}

LoopState load_loop_state(
    const Value& file,
    int64_t step,
    const std::string& path) {
  LoopState state;
  state.step = step;
  const Value* own = file.find(std::string_view(kOwnKey));
  if (own == nullptr) {
    return state; // written by the Python program
  }
  const auto version =
      static_cast<int64_t>(number_at(*own, "format_version", path));
  if (version != kFormatVersion) {
    throw base::Error(
        base::ExitCode::data,
        "the checkpoint has format version " + std::to_string(version) +
            ", this program reads " + std::to_string(kFormatVersion),
        path,
        "use the program that wrote it, or a newer one");
  }
  if (number_at(*own, "step", path) != static_cast<double>(step)) {
    throw unfit("the step in the file is not the one in its name", path);
  }
  state.loss_sum = number_at(*own, "loss_sum", path);
  state.loss_count = static_cast<int64_t>(number_at(*own, "loss_count", path));
  if (own->find(std::string_view(kSamplesKey)) != nullptr) {
    state.samples = static_cast<int64_t>(number_at(*own, kSamplesKey, path));
    if (state.samples < 0) {
      throw unfit("the number of samples is negative", path);
    }
  }
  return state;
}

checkpoint::LatestCheckpoint open_checkpoint(
    const checkpoint::CheckpointPath& path,
    bool newest_whole) {
  checkpoint::require_kind(path, checkpoint::CheckpointKind::steps);
  if (path.is_named()) {
    checkpoint::LatestCheckpoint named;
    named.file.path = path.text();
    named.file.step =
        checkpoint::parse_step_checkpoint_name(path.name).value_or(-1);
    named.value = formats::load_torch_file(path.text());
    return named;
  }
  auto latest = checkpoint::latest_whole_checkpoint(path.folder, newest_whole);
  for (const std::string& line : latest.skipped) {
    base::log_warning("passed over a checkpoint that is not whole: " + line);
  }
  if (!latest.skipped.empty()) {
    base::log_warning("taken in its place: " + latest.file.path);
  }
  return latest;
}

} // namespace

void SingleProcessModel::save(
    const std::string& folder,
    const LoopState& state) {
  flat::FileTensors tensors;
  Value own = formats::make_dict();
  own.set("format_version", kFormatVersion);
  own.set("step", state.step);
  own.set("loss_sum", state.loss_sum);
  own.set("loss_count", state.loss_count);
  own.set(kSamplesKey, state.samples);
  Value file = formats::make_dict();
  file.set(
      "model", model_value(model_->state_dict_entries(), parameters_, tensors));
  file.set("optimizer", optimizer_value(optimizer_, tensors));
  file.set(kOwnKey, std::move(own));
  formats::save_torch_file(
      checkpoint::join(folder, checkpoint_name(state.step)), file);
  if (keep_last_ > 0) {
    checkpoint::keep_last(folder, keep_last_);
  }
}

std::string SingleProcessModel::checkpoint_name(int64_t step) const {
  return checkpoint::step_checkpoint_name(step);
}

LoadedState SingleProcessModel::load(const checkpoint::CheckpointPath& from) {
  const checkpoint::LatestCheckpoint latest =
      open_checkpoint(from, /*newest_whole=*/true);
  const auto& [step, path] = latest.file;
  const Value& file = latest.value;
  if (step < 0) {
    throw base::Error(
        base::ExitCode::data,
        "the name of the checkpoint does not tell its step",
        path,
        "rename it to " + checkpoint::step_checkpoint_name(1000) +
            " if it is of step 1000");
  }
  LoadedState state{
      load_loop_state(file, step, path),
      checkpoint::step_checkpoint_name(step),
      latest.skipped};
  load_model(at(file, "model", path), *model_, parameters_, path);
  load_optimizer(at(file, "optimizer", path), optimizer_, path);
  return state;
}

bool SingleProcessModel::is_finite() const {
  for (const flat::FlatEntry& entry : parameters_.entries()) {
    if (!flat::is_finite(parameters_.master(entry))) {
      return false;
    }
  }
  for (const optim::AdamParameterState& state : optimizer_.state()) {
    if (!flat::is_finite(state.exp_avg) || !flat::is_finite(state.exp_avg_sq)) {
      return false;
    }
  }
  return true;
}

void load_step_checkpoint_weights(
    const checkpoint::CheckpointPath& path,
    bool newest_whole,
    bert::RobertaForMaskedLMImpl& model) {
  const checkpoint::LatestCheckpoint latest =
      open_checkpoint(path, newest_whole);
  flat::FlatParameters parameters(model, at::kFloat);
  load_model(
      at(latest.value, "model", latest.file.path),
      model,
      parameters,
      latest.file.path);
}

std::vector<bert::NamedTensor> SingleProcessModel::weights() const {
  std::vector<bert::NamedTensor> weights;
  for (const flat::FlatEntry& entry : parameters_.entries()) {
    weights.push_back({entry.name, parameters_.master(entry)});
  }
  return weights;
}

} // namespace deepspeed::pretrain
