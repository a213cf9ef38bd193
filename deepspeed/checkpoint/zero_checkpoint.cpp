// Reading DeepSpeed's checkpoints of ZeRO stages 0, 1 and 2.
#include "deepspeed/checkpoint/zero_checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/checkpoint_path.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_data.h"
#include "deepspeed/checkpoint/zero_keys.h"

namespace deepspeed::checkpoint {
namespace {

using base::Error;
using base::ExitCode;
using Data = ZeroCheckpoint::Data;

// Of the first parameter, or of the first floating tensor.
formats::DType model_dtype(const Data& data) {
  for (const ZeroGroup& group : data.topology.groups) {
    if (!group.parameters.empty()) {
      const size_t at = data.module_index.at(group.parameters[0].name);
      return data.module[at].tensor.dtype;
    }
  }
  for (const formats::NamedTensor& named : data.module) {
    if (is_floating(named.tensor.dtype)) {
      return named.tensor.dtype;
    }
  }
  return formats::DType::float32;
}

// What is neither in a param group, nor a buffer, nor a second name.
void find_frozen(Data& data) {
  std::unordered_set<std::string> others(
      data.buffers.begin(), data.buffers.end());
  for (const auto& [alias, owner] : data.shared) {
    others.insert(alias);
  }
  for (const formats::NamedTensor& named : data.module) {
    if (!others.contains(named.name) && !data.places.contains(named.name)) {
      data.frozen.push_back(named.name);
    }
  }
}

void list_states(Data& data) {
  for (const auto& states : data.states) {
    for (const auto& [name, image] : states) {
      if (std::find(data.state_names.begin(), data.state_names.end(), name) ==
          data.state_names.end()) {
        data.state_names.push_back(name);
      }
    }
  }
}

void read_trees(
    const ZeroTag& files,
    const ZeroOpenOptions& options,
    Data& data) {
  const formats::Field root(files.model.value, files.model.path);
  zero_load::load_model(root, data);
  if (!files.shards.empty()) {
    zero_load::load_shards(files, data);
  } else if (const auto shapes = root.find(zero_keys::kParamShapes);
             shapes && !shapes->is_none()) {
    throw Error(
        ExitCode::data,
        "the shards of all " + std::to_string(data.topology.ranks) +
            " ranks are missing",
        files.path,
        "find the files *_optim_states.pt, or take another tag");
  } else {
    zero_load::load_stage0(root, options, data);
  }
}

// A manifest that does not fit is a sign that files were replaced, maybe not
// all of them. In a folder of Python's somebody may have changed the weights of
// the model file on purpose.
void compare_files(
    const ZeroTag& files,
    const std::string& passed_over,
    Data& data) {
  if (files.shards.empty() || !files.manifest.is_null()) {
    return;
  }
  const std::string difference = zero_load::contradiction(data);
  if (difference.empty()) {
    return;
  }
  if (!passed_over.empty()) {
    throw Error(
        ExitCode::data,
        difference + ": the files are not of one checkpoint",
        files.path,
        "take another tag, or put back a copy of this one");
  }
  data.notes.push_back(files.path + ": " + difference);
}

// Of the tag in the folder `path`.
std::shared_ptr<Data> load(
    const std::string& path,
    const ZeroOpenOptions& options) {
  std::string passed_over;
  try {
    ZeroTag files = open_tag(path, options.verify, &passed_over);
    auto data = std::make_shared<Data>();
    data->tag = std::filesystem::path(path).filename().string();
    data->path = path;
    data->manifest = std::move(files.manifest);
    if (!passed_over.empty()) {
      data->notes.push_back(
          "the manifest was passed over, the files are whole without it: " +
          passed_over);
    }
    read_trees(files, options, *data);
    data->topology.dtype = model_dtype(*data);
    compare_files(files, passed_over, *data);
    find_frozen(*data);
    list_states(*data);
    data->mappings.push_back(files.model.mapping);
    for (const ZeroTagFile& shard : files.shards) {
      data->mappings.push_back(shard.mapping);
    }
    return data;
  } catch (const Error& error) {
    if (error.code() != ExitCode::data || passed_over.empty()) {
      throw;
    }
    throw Error(
        ExitCode::data,
        std::string(error.what()) +
            " (and the manifest does not fit: " + passed_over + ")",
        error.where(),
        error.hint());
  }
}

[[noreturn]] void no_such_tag(
    const std::string& folder,
    const std::string& tag) {
  std::string known;
  for (const std::string& one : list_tags(folder)) {
    known += (known.empty() ? "" : ", ") + one;
  }
  throw Error(
      ExitCode::no_input,
      "there is no checkpoint of tag " + tag,
      folder,
      known.empty() ? "the folder has none" : "there are: " + known);
}

// The newest tag that is whole, `latest` first. Names in `skipped` what was
// tried before.
class Search {
 public:
  Search(const std::string& folder, const ZeroOpenOptions& options)
      : folder_(folder), options_(options) {}

  std::shared_ptr<Data> run() {
    const std::string latest = latest_tag();
    if (!latest.empty()) {
      if (auto found = attempt(latest)) {
        return found;
      }
    }
    for (const std::string& tag : list_tags(folder_)) {
      auto found = tag == latest ? nullptr : attempt(tag);
      if (found == nullptr) {
        continue;
      }
      if (!options_.newest_whole) {
        refuse(*found);
      }
      found->skipped = std::move(skipped_);
      return found;
    }
    fail();
  }

 private:
  void skip(const Error& error) {
    skipped_.push_back(error.where() + ": " + error.what());
  }

  // Empty, with a line in skipped_, if `latest` names none.
  std::string latest_tag() {
    try {
      if (const auto tag = read_latest(folder_)) {
        return *tag;
      }
      skipped_.push_back(
          join(folder_, kLatestFile) + ": there is no such file");
    } catch (const Error& error) {
      skip(error);
    }
    return "";
  }

  // Null, with a line in skipped_, if the tag is not whole.
  std::shared_ptr<Data> attempt(const std::string& tag) {
    has_tags_ = true;
    try {
      return load(join(folder_, tag), options_);
    } catch (const Error& error) {
      if (error.code() != ExitCode::data &&
          error.code() != ExitCode::no_input && error.code() != ExitCode::io) {
        throw;
      }
      skip(error);
      return nullptr;
    }
  }

  // Another one than was meant is not taken without being asked for.
  [[noreturn]] void refuse(const Data& found) const {
    throw Error(
        ExitCode::data,
        "the newest checkpoint cannot be used: " + skipped_[0],
        folder_,
        found.path + " (step " + std::to_string(found.global_steps) +
            ") is the newest that is whole: give this folder, or "
            "--newest_whole");
  }

  [[noreturn]] void fail() const {
    if (!has_tags_) {
      throw Error(
          ExitCode::no_input,
          "no checkpoint in the folder (" + skipped_[0] + ")",
          folder_,
          "give the folder that holds `latest` and the folders of tags");
    }
    throw Error(
        ExitCode::data,
        "no checkpoint is whole; the first that was tried: " + skipped_[0],
        folder_,
        "put back a copy of a checkpoint, or start anew in another folder");
  }

  const std::string& folder_;
  const ZeroOpenOptions& options_;
  std::vector<std::string> skipped_;
  bool has_tags_ = false;
};

} // namespace

ZeroCheckpoint ZeroCheckpoint::open(
    const std::string& folder,
    const std::string& tag,
    const ZeroOpenOptions& options) {
  const CheckpointPath path = find_checkpoint(folder);
  require_kind(path, CheckpointKind::tags);
  if (path.is_named()) {
    if (!tag.empty() && tag != path.name) {
      throw Error(
          ExitCode::usage,
          "the folder is that of tag " + path.name + ", not of tag " + tag,
          folder,
          "leave out the tag, or give the folder of the experiment");
    }
    return ZeroCheckpoint(load(path.text(), options));
  }
  if (tag.empty()) {
    return ZeroCheckpoint(Search(folder, options).run());
  }
  if (!is_tag(tag)) {
    throw Error(
        ExitCode::usage,
        "'" + tag + "' is not the name of a tag",
        folder,
        "a tag has letters, digits, '.', '_' and '-', at most 128");
  }
  if (!has_tag(folder, tag)) {
    no_such_tag(folder, tag);
  }
  return ZeroCheckpoint(load(join(folder, tag), options));
}

const std::string& ZeroCheckpoint::tag() const {
  return data_->tag;
}
const std::string& ZeroCheckpoint::path() const {
  return data_->path;
}
const std::vector<std::string>& ZeroCheckpoint::skipped() const {
  return data_->skipped;
}
const std::vector<std::string>& ZeroCheckpoint::notes() const {
  return data_->notes;
}
const base::Json& ZeroCheckpoint::manifest() const {
  return data_->manifest;
}
const ZeroTopology& ZeroCheckpoint::topology() const {
  return data_->topology;
}
const std::vector<formats::NamedTensor>& ZeroCheckpoint::module() const {
  return data_->module;
}
const formats::Tensor* ZeroCheckpoint::find_module(
    const std::string& name) const {
  const auto found = data_->module_index.find(name);
  return found == data_->module_index.end()
      ? nullptr
      : &data_->module[found->second].tensor;
}
const std::vector<std::string>& ZeroCheckpoint::buffers() const {
  return data_->buffers;
}
const std::vector<std::string>& ZeroCheckpoint::frozen() const {
  return data_->frozen;
}
const std::vector<std::pair<std::string, std::string>>& ZeroCheckpoint::shared()
    const {
  return data_->shared;
}
int64_t ZeroCheckpoint::global_steps() const {
  return data_->global_steps;
}
int64_t ZeroCheckpoint::global_samples() const {
  return data_->global_samples;
}
int64_t ZeroCheckpoint::skipped_steps() const {
  return data_->skipped_steps;
}
const formats::Value& ZeroCheckpoint::lr_scheduler() const {
  return data_->lr_scheduler;
}
const formats::Value& ZeroCheckpoint::ds_config() const {
  return data_->ds_config;
}
const std::vector<std::string>& ZeroCheckpoint::dropped() const {
  return data_->dropped;
}
const formats::Value& ZeroCheckpoint::client_state() const {
  return data_->client_state;
}
const LossScalerState& ZeroCheckpoint::loss_scaler() const {
  return data_->loss_scaler;
}
double ZeroCheckpoint::clip_grad() const {
  return data_->clip_grad;
}
const std::vector<std::string>& ZeroCheckpoint::state_names() const {
  return data_->state_names;
}

namespace {

const Data::Place& find_place(const Data& data, const std::string& parameter) {
  const auto found = data.places.find(parameter);
  if (found == data.places.end()) {
    throw std::out_of_range(parameter + " is in no param group");
  }
  return found->second;
}

const Data::Place& find_range(
    const Data& data,
    const std::string& parameter,
    int64_t begin,
    int64_t end) {
  const Data::Place& place = find_place(data, parameter);
  if (begin < 0 || begin > end || end > place.numel) {
    throw std::out_of_range(
        "elements " + std::to_string(begin) + " to " + std::to_string(end) +
        " of " + parameter);
  }
  return place;
}

} // namespace

void ZeroCheckpoint::read_fp32(
    const std::string& parameter,
    int64_t begin,
    int64_t end,
    float* out) const {
  const Data::Place& place = find_range(*data_, parameter, begin, end);
  data_->fp32[place.group].read(place.begin + begin, place.begin + end, out);
}

bool ZeroCheckpoint::has_state(
    const std::string& state,
    const std::string& parameter) const {
  const Data::Place& place = find_place(*data_, parameter);
  const auto& states = data_->states[place.group];
  const auto found = states.find(state);
  return found != states.end() &&
      found->second.covers(place.begin, place.begin + place.numel);
}

void ZeroCheckpoint::read_state(
    const std::string& state,
    const std::string& parameter,
    int64_t begin,
    int64_t end,
    float* out) const {
  const Data::Place& place = find_range(*data_, parameter, begin, end);
  const auto& states = data_->states[place.group];
  const auto found = states.find(state);
  if (found == states.end()) {
    std::fill_n(out, end - begin, 0.0f);
    return;
  }
  found->second.read(place.begin + begin, place.begin + end, out);
}

int64_t ZeroCheckpoint::step(const std::string& parameter) const {
  return find_place(*data_, parameter).step;
}

void ZeroCheckpoint::release_pages() const {
  for (const auto& mapping : data_->mappings) {
    mapping->release_pages();
  }
}

} // namespace deepspeed::checkpoint
