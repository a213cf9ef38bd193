// From a checkpoint of any stage to plain fp32 weights.
#include "deepspeed/checkpoint/zero_export.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/flat_image.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/model_folder.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

using base::Error;
using base::ExitCode;
using Reader = std::function<void(int64_t begin, int64_t end, float* out)>;

constexpr int64_t kBlockElements = int64_t{1} << 18;
constexpr int64_t kReleaseElements = int64_t{1} << 24;

// fp32 elements, read block by block while they are written.
class FloatSource : public formats::ByteSource {
 public:
  FloatSource(int64_t numel, Reader read, ZeroCheckpoint checkpoint)
      : numel_(numel),
        read_(std::move(read)),
        checkpoint_(std::move(checkpoint)) {}

  uint64_t size() const override {
    return static_cast<uint64_t>(numel_) * sizeof(float);
  }

  void write_to(const formats::ByteSink& sink) const override {
    std::vector<float> block(
        static_cast<size_t>(std::min(numel_, kBlockElements)));
    for (int64_t at = 0; at < numel_; at += kBlockElements) {
      const int64_t end = std::min(numel_, at + kBlockElements);
      read_(at, end, block.data());
      sink(std::as_bytes(
          std::span(block.data(), static_cast<size_t>(end - at))));
      if (end % kReleaseElements == 0) {
        checkpoint_.release_pages();
      }
    }
    checkpoint_.release_pages();
  }

 private:
  int64_t numel_;
  Reader read_;
  ZeroCheckpoint checkpoint_;
};

// A tensor of the module as fp32 if it is floating, else as it is.
formats::Tensor of_module(
    const ZeroCheckpoint& checkpoint,
    const formats::Tensor& tensor) {
  if (!is_floating(tensor.dtype)) {
    const auto bytes =
        std::make_shared<std::vector<std::byte>>(tensor.byte_size());
    tensor.copy_to(bytes->data());
    return formats::Tensor::borrow(
        tensor.dtype, tensor.sizes, bytes->data(), bytes);
  }
  formats::Tensor dense = tensor;
  if (!tensor.is_contiguous()) {
    // Gathered once: block by block it would be gathered for each block.
    const auto bytes =
        std::make_shared<std::vector<std::byte>>(tensor.byte_size());
    tensor.copy_to(bytes->data());
    dense = formats::Tensor::borrow(
        tensor.dtype, tensor.sizes, bytes->data(), bytes);
  }
  const auto read = [dense](int64_t begin, int64_t end, float* out) {
    read_floats(dense, begin, end, out);
  };
  return formats::Tensor::deferred(
      formats::DType::float32,
      tensor.sizes,
      std::make_shared<FloatSource>(tensor.numel(), read, checkpoint));
}

formats::Tensor of_group(
    const ZeroCheckpoint& checkpoint,
    const ZeroParameter& parameter) {
  const auto read = [checkpoint, name = parameter.name](
                        int64_t begin, int64_t end, float* out) {
    checkpoint.read_fp32(name, begin, end, out);
  };
  return formats::Tensor::deferred(
      formats::DType::float32,
      parameter.sizes,
      std::make_shared<FloatSource>(parameter.numel(), read, checkpoint));
}

// All tensors in DeepSpeed's order: buffers, frozen parameters, param groups.
std::vector<formats::NamedTensor> list_tensors(
    const ZeroCheckpoint& checkpoint,
    bool exclude_frozen) {
  const auto contains = [](const std::vector<std::string>& names) {
    return std::unordered_set<std::string>(names.begin(), names.end());
  };
  const auto buffers = contains(checkpoint.buffers());
  const auto frozen = contains(checkpoint.frozen());
  std::vector<formats::NamedTensor> out;
  const auto add_those_in = [&](const std::unordered_set<std::string>& set) {
    for (const formats::NamedTensor& named : checkpoint.module()) {
      if (set.contains(named.name)) {
        out.push_back({named.name, of_module(checkpoint, named.tensor)});
      }
    }
  };
  add_those_in(buffers);
  if (exclude_frozen && checkpoint.topology().groups.empty()) {
    throw Error(
        ExitCode::config,
        "the checkpoint does not tell which parameters are frozen",
        checkpoint.path(),
        "leave out --exclude_frozen_parameters");
  }
  if (!exclude_frozen) {
    add_those_in(frozen);
  }
  for (const ZeroGroup& group : checkpoint.topology().groups) {
    for (const ZeroParameter& parameter : group.parameters) {
      out.push_back({parameter.name, of_group(checkpoint, parameter)});
    }
  }
  return out;
}

using Shared = std::vector<std::pair<std::string, std::string>>;

struct Part {
  std::vector<formats::NamedTensor> tensors;
  Shared shared; // tied names whose owner is here
};

// huggingface_hub's split_torch_state_dict_into_shards(): in order, a new file
// when the next tensor would not fit, files of their own for larger ones.
std::vector<Part> split(
    std::vector<formats::NamedTensor> tensors,
    const Shared& shared,
    uint64_t max_bytes) {
  std::vector<Part> parts;
  Part current;
  uint64_t bytes = 0;
  for (formats::NamedTensor& named : tensors) {
    const uint64_t size = named.tensor.byte_size();
    if (size > max_bytes) {
      parts.push_back({{std::move(named)}, {}});
      continue;
    }
    if (bytes + size > max_bytes) {
      parts.push_back(std::exchange(current, {}));
      bytes = 0;
    }
    current.tensors.push_back(std::move(named));
    bytes += size;
  }
  if (!current.tensors.empty() || parts.empty()) {
    parts.push_back(std::move(current));
  }
  for (const auto& [alias, owner] : shared) {
    for (Part& part : parts) {
      const bool is_here = std::any_of(
          part.tensors.begin(),
          part.tensors.end(),
          [&, &name = owner](const formats::NamedTensor& named) {
            return named.name == name;
          });
      if (is_here) {
        part.shared.emplace_back(alias, owner);
        break;
      }
    }
  }
  return parts;
}

void write_torch(const std::string& path, const Part& part) {
  formats::Dict dict;
  std::unordered_map<std::string, formats::Tensor> by_name;
  for (const formats::NamedTensor& named : part.tensors) {
    dict.entries.push_back({named.name, named.tensor});
    by_name.emplace(named.name, named.tensor);
  }
  for (const auto& [alias, owner] : part.shared) {
    dict.entries.push_back({alias, by_name.at(owner)});
  }
  formats::save_torch_file(path, std::move(dict));
}

std::vector<std::string> names_of(const Part& part) {
  std::vector<std::string> names;
  for (const formats::NamedTensor& named : part.tensors) {
    names.push_back(named.name);
  }
  for (const auto& [alias, owner] : part.shared) {
    names.push_back(alias);
  }
  return names;
}

std::string index_text(
    const std::vector<Part>& parts,
    const std::vector<std::string>& files) {
  uint64_t bytes = 0;
  std::map<std::string, std::string> map;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const formats::NamedTensor& named : parts[i].tensors) {
      bytes += named.tensor.byte_size();
    }
    for (const std::string& name : names_of(parts[i])) {
      map[name] = files[i];
    }
  }
  const base::Json index{
      {"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  return index.dump(2, ' ', true) + "\n";
}

// Older weights of the same format go, in as many files as they are: a loader
// would take one file before parts, and an index before what it should name.
// Those of the other format stay, and are named.
void clear_weights(
    const std::string& folder,
    const std::vector<std::string>& written,
    std::string_view name,
    std::string_view index) {
  const std::string_view suffix = name.substr(name.rfind('.'));
  std::vector<std::string> same;
  std::string other;
  for (const std::string& file : list_model_files(folder, ModelFile::weights)) {
    if (std::find(written.begin(), written.end(), file) != written.end()) {
      continue;
    }
    if (file == index || file.ends_with(suffix)) {
      same.push_back(file);
    } else {
      other += (other.empty() ? "" : ", ") + file;
    }
  }
  // The index first: without it, parts are no model.
  std::stable_partition(same.begin(), same.end(), [&](const auto& file) {
    return file == index;
  });
  remove_model_files(folder, same);
  if (!other.empty()) {
    base::log_warning(
        folder +
        " has other weights, too, which a loader may prefer: " + other);
  }
}

} // namespace

std::vector<std::string> export_fp32(
    const ZeroCheckpoint& checkpoint,
    const std::string& folder,
    const ExportOptions& options) {
  file::make_folders(folder);
  const std::vector<Part> parts = split(
      list_tensors(checkpoint, options.exclude_frozen),
      checkpoint.shared(),
      options.max_shard_size);
  const std::string_view name =
      options.safetensors ? kModelWeightsFile : kTorchWeightsFile;
  const std::string_view index =
      options.safetensors ? kSafetensorsIndexFile : kTorchIndexFile;
  std::vector<std::string> files;
  for (size_t i = 0; i < parts.size(); ++i) {
    files.push_back(weights_shard_name(name, i + 1, parts.size()));
  }
  clear_weights(folder, files, name, index);
  std::vector<std::string> paths;
  for (size_t i = 0; i < parts.size(); ++i) {
    paths.push_back(join(folder, files[i]));
    if (options.safetensors) {
      // The format has no tied tensors: as safetensors.torch.save_model()
      // does, one copy is written and the metadata tells its other names.
      formats::save_safetensors(
          paths.back(), parts[i].tensors, parts[i].shared);
    } else {
      write_torch(paths.back(), parts[i]);
    }
  }
  if (parts.size() > 1) {
    paths.push_back(join(folder, index));
    file::write_file_atomically(paths.back(), index_text(parts, files));
  }
  return paths;
}

uint64_t parse_size(const std::string& text) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}};
  std::string upper = text;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  for (const auto& [unit, factor] : kUnits) {
    if (!upper.ends_with(unit)) {
      continue;
    }
    const std::string digits = upper.substr(0, upper.size() - 2);
    const bool plain = !digits.empty() &&
        digits.find_first_not_of("0123456789.") == std::string::npos &&
        std::count(digits.begin(), digits.end(), '.') <= 1 && digits != ".";
    const double size = plain ? std::stod(digits) * factor : 0;
    if (size >= 1 && size < 0x1p63) {
      return static_cast<uint64_t>(size);
    }
  }
  throw Error(
      ExitCode::usage,
      "'" + text + "' is no size",
      "",
      "write a number with KB, MB, GB or TB, such as 5GB");
}

} // namespace deepspeed::checkpoint
