// The folder of a model of transformers: its weights, and what must not stand
// beside new ones.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/formats/safetensors.h"

namespace deepspeed::checkpoint {

// Tensors of one file or of several with an index.
class ModelWeights {
 public:
  // Takes what transformers takes: model.safetensors, else the parts that its
  // index names, else the same of pytorch_model.bin. Nothing of a file is run.
  // Error(no_input) if there is none of them or a part is missing, Error(data)
  // for a damaged file, an index that names a path, or one that its parts
  // contradict.
  static ModelWeights open(const std::string& folder);

  // Null if there is none of that name; tied names of a file's metadata count.
  const formats::Tensor* find(const std::string& name) const;
  const std::vector<formats::NamedTensor>& tensors() const {
    return tensors_;
  }
  // The file or the index, for messages.
  const std::string& path() const {
    return path_;
  }

 private:
  explicit ModelWeights(std::string path) : path_(std::move(path)) {}
  void add_file(const std::string& path);
  void add_parts(const std::string& folder);

  std::string path_;
  std::vector<formats::NamedTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// The files of that kind in the folder, by name.
std::vector<std::string> list_model_files(
    const std::string& folder,
    ModelFile kind);

// Removes files of the folder and says which in a line: transformers could load
// them in place of what is written next. Error(cannot_create) if one cannot be
// removed.
void remove_model_files(
    const std::string& folder,
    const std::vector<std::string>& names);

} // namespace deepspeed::checkpoint
