// The folder of a model of transformers: its weights, and what must not stand
// beside new ones.
#include "deepspeed/checkpoint/model_folder.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

using base::Error;
using base::ExitCode;

constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 27;

Error damaged(const std::string& what, const std::string& path) {
  return Error(
      ExitCode::data, what, path, "get the whole folder of the model again");
}

} // namespace

ModelWeights ModelWeights::open(const std::string& folder) {
  for (const auto& [single, index] :
       {std::pair(kModelWeightsFile, kSafetensorsIndexFile),
        std::pair(kTorchWeightsFile, kTorchIndexFile)}) {
    if (std::filesystem::exists(join(folder, single))) {
      ModelWeights weights(join(folder, single));
      weights.add_file(weights.path_);
      return weights;
    }
    if (std::filesystem::exists(join(folder, index))) {
      ModelWeights weights(join(folder, index));
      weights.add_parts(folder);
      return weights;
    }
  }
  throw Error(
      ExitCode::no_input,
      "no weights there: neither " + std::string(kModelWeightsFile) + " nor " +
          std::string(kTorchWeightsFile) + ", nor an index of one of them",
      folder,
      "get the whole folder of the model");
}

const formats::Tensor* ModelWeights::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second].tensor;
}

void ModelWeights::add_file(const std::string& path) {
  std::vector<formats::NamedTensor> tensors;
  std::vector<std::pair<std::string, std::string>> aliases;
  if (path.ends_with(".safetensors")) {
    formats::Safetensors file = formats::load_safetensors(path);
    tensors = std::move(file.tensors);
    aliases = std::move(file.metadata); // tied names, among others
  } else {
    const formats::Value value = formats::load_torch_file(path);
    const formats::Dict* dict = value.get_if<formats::Dict>();
    if (dict == nullptr) {
      throw damaged(
          "not a dict of tensors, but " + formats::describe(value), path);
    }
    for (const formats::DictEntry& entry : dict->entries) {
      const std::string* name = entry.key.get_if<std::string>();
      if (name == nullptr || entry.value.tensor() == nullptr) {
        throw damaged(
            "not a dict of tensors: " + formats::describe(entry.key) + " is " +
                formats::describe(entry.value),
            path);
      }
      tensors.push_back({*name, *entry.value.tensor()});
    }
  }
  for (formats::NamedTensor& named : tensors) {
    if (!index_.emplace(named.name, tensors_.size()).second) {
      throw damaged("'" + named.name + "' stands in another part, too", path);
    }
    tensors_.push_back(std::move(named));
  }
  for (const auto& [alias, owner] : aliases) {
    const auto found = index_.find(owner);
    if (found != index_.end()) {
      index_.emplace(alias, found->second);
    }
  }
}

void ModelWeights::add_parts(const std::string& folder) {
  const base::Json index = file::read_json(path_, kMaxIndexBytes);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty()) {
    throw damaged("the index has no weight_map", path_);
  }
  std::set<std::string> parts;
  for (const auto& [name, part] : map->items()) {
    if (!part.is_string() ||
        parse_model_file_name(part.get<std::string>()) != ModelFile::weights) {
      throw damaged(
          "the index says that '" + name + "' is in " + part.dump() +
              ", which is no name of a part",
          path_);
    }
    parts.insert(part.get<std::string>());
  }
  for (const std::string& part : parts) {
    const size_t before = tensors_.size();
    add_file(join(folder, part));
    for (size_t i = before; i < tensors_.size(); ++i) {
      const auto entry = map->find(tensors_[i].name);
      if (entry == map->end() || *entry != part) {
        throw damaged(
            "the index does not say that '" + tensors_[i].name + "' is in " +
                part,
            path_);
      }
    }
  }
  for (const auto& [name, part] : map->items()) {
    if (find(name) == nullptr) {
      throw damaged(
          "the index says that '" + name + "' is in " +
              part.get<std::string>() + ", but it is not",
          path_);
    }
  }
}

std::vector<std::string> list_model_files(
    const std::string& folder,
    ModelFile kind) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (parse_model_file_name(name) == kind) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

void remove_model_files(
    const std::string& folder,
    const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) {
    if (file::file_system().remove(join(folder, name)) != 0 &&
        errno != ENOENT) {
      throw base::system_error(
          ExitCode::cannot_create,
          "cannot remove a file of an older model",
          join(folder, name),
          errno);
    }
    list += (list.empty() ? "" : ", ") + name;
  }
  if (!list.empty()) {
    base::log_info(
        "removed from " + folder + ", as they are of another model: " + list);
  }
}

} // namespace deepspeed::checkpoint
