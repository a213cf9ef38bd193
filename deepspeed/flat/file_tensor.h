// libtorch tensors as the tensors of files, and back.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "deepspeed/flat/torch_headers.h"
#include "deepspeed/formats/tensor.h"

namespace deepspeed::flat {

// Why a file cannot hold such a tensor, in words: it is sparse, quantized, or
// of a dtype that torch.load() could not read from it. Empty if it can.
std::string storage_fault(const at::Tensor& tensor);

// Makes views of CPU tensors for a file, without a copy, but for those that are
// views with conjugation or negation. Tensors that share a libtorch storage
// share one in the file. std::invalid_argument where storage_fault() has one.
class FileTensors {
 public:
  formats::Tensor add(const at::Tensor& tensor);

 private:
  std::map<const void*, std::shared_ptr<const formats::Storage>> storages_;
};

// Whether no element is infinite or NaN. One pass, no memory.
bool is_finite(const at::Tensor& tensor);

// Error(data) naming `name` if `source` does not fit into `target`: the shapes
// differ, or its dtype has not the values (complex numbers for real ones,
// fractions or larger numbers for integers). Rounding is no such thing.
void require_fit(
    const formats::Tensor& source,
    const std::string& name,
    const at::Tensor& target);

// Copies `source` into `target`, converting the dtype. Throws as require_fit().
void copy_from_file(
    const formats::Tensor& source,
    const std::string& name,
    at::Tensor target);

// Error(data) naming `name` unless `source` holds just these values.
void check_equal(
    const formats::Tensor& source,
    const std::string& name,
    const at::Tensor& expected);

} // namespace deepspeed::flat
