// libtorch tensors as the tensors of files, and back.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "deepspeed/checkpoint/tensor.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// Makes views of CPU tensors for a file, without a copy. Tensors that share a
// libtorch storage share one in the file.
class FileTensors {
 public:
  checkpoint::Tensor add(const at::Tensor& tensor);

 private:
  std::map<const void*, std::shared_ptr<const checkpoint::Storage>> storages_;
};

// Copies `source` into `target`, converting the dtype. Error(data) naming
// `name` if the shapes differ.
void copy_from_file(
    const checkpoint::Tensor& source,
    const std::string& name,
    at::Tensor target);

} // namespace deepspeed::flat
