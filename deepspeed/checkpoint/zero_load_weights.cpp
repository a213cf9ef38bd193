// Whether the model file and the shards are of one checkpoint.
#include <algorithm>
#include <cmath>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/checkpoint/zero_data.h"

namespace deepspeed::checkpoint::zero_load {
namespace {

constexpr int64_t kSample = 32; // elements at each end of a parameter

// `value` as a tensor of this dtype holds it.
float rounded(float value, formats::DType dtype) {
  switch (dtype) {
    case formats::DType::bfloat16:
      return static_cast<float>(base::BFloat16(value));
    case formats::DType::float16:
      return static_cast<float>(base::Float16(value));
    default:
      return value;
  }
}

bool differ(
    const formats::Tensor& tensor,
    const FlatImage& fp32,
    const Data::Place& place,
    int64_t begin,
    int64_t end) {
  float model[kSample];
  float master[kSample];
  read_floats(tensor, begin, end, model);
  fp32.read(place.begin + begin, place.begin + end, master);
  for (int64_t i = 0; i < end - begin; ++i) {
    const float expected = rounded(master[i], tensor.dtype);
    if (model[i] != expected &&
        !(std::isnan(model[i]) && std::isnan(expected))) {
      return true;
    }
  }
  return false;
}

} // namespace

std::string contradiction(const Data& data) {
  for (const auto& [name, place] : data.places) {
    if (place.step > data.global_steps - data.skipped_steps) {
      return "the model file is of step " + std::to_string(data.global_steps) +
          ", the shards have made " + std::to_string(place.step) + " updates";
    }
  }
  for (const ZeroGroup& group : data.topology.groups) {
    for (const ZeroParameter& parameter : group.parameters) {
      const formats::Tensor& tensor =
          data.module[data.module_index.at(parameter.name)].tensor;
      const Data::Place& place = data.places.at(parameter.name);
      const int64_t sample = std::min(kSample, place.numel);
      if (!is_floating(tensor.dtype) || tensor.numel() != place.numel ||
          !tensor.is_contiguous()) {
        continue;
      }
      const FlatImage& fp32 = data.fp32[place.group];
      if (differ(tensor, fp32, place, 0, sample) ||
          differ(tensor, fp32, place, place.numel - sample, place.numel)) {
        return "the weights of '" + parameter.name +
            "' in the model file are not those of the shards";
      }
    }
  }
  return "";
}

} // namespace deepspeed::checkpoint::zero_load
