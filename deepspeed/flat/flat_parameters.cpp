// The parameters of a module in one flat buffer, and their gradients in
// another.
#include "deepspeed/flat/flat_parameters.h"

#include <algorithm>

#include <stdexcept>

#include "deepspeed/flat/aliases.h"
#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::flat {

void put(FlatEntry& entry, const at::Tensor& place) {
  entry.parameter.set_data(place);
  entry.place = place.const_data_ptr();
  entry.version = entry.parameter._version();
}

void check_place(const FlatEntry& entry) {
  if (entry.parameter.const_data_ptr() != entry.place) {
    throw std::logic_error(
        "parameter " + entry.name +
        " is not where it is trained any more: the module was moved, cast or "
        "loaded (to(), set_data(), torch::load()) after its parameters had "
        "been taken. Do that before");
  }
}

namespace {

// Each parameter once, however many names it has.
NamedTensors distinct_parameters(const torch::nn::Module& module) {
  NamedTensors parameters;
  for (const auto& item : module.named_parameters()) {
    const auto known = [&](const auto& other) {
      return other.second.is_same(item.value());
    };
    if (std::none_of(parameters.begin(), parameters.end(), known)) {
      parameters.emplace_back(item.key(), item.value());
    }
  }
  return parameters;
}

} // namespace

FlatParameters::FlatParameters(
    torch::nn::Module& module,
    at::ScalarType compute_dtype) {
  int64_t numel = 0;
  const NamedTensors parameters = distinct_parameters(module);
  refuse_shared_elements(parameters, {});
  for (const auto& [name, parameter] : parameters) {
    TORCH_CHECK_VALUE(
        parameter.scalar_type() == at::kFloat,
        "parameter ",
        name,
        " must be fp32 before it is flattened, but is ",
        parameter.scalar_type());
    FlatEntry entry;
    entry.name = name;
    entry.parameter = parameter;
    entry.offset = numel;
    entry.numel = entry.parameter.numel();
    numel += entry.numel;
    entries_.push_back(std::move(entry));
  }
  const auto options =
      at::TensorOptions()
          .dtype(at::kFloat)
          .device(
              entries_.empty() ? at::Device(at::kCPU)
                               : entries_.front().parameter.device());
  const at::NoGradGuard no_grad;
  master_ = large_zeros(numel, options);
  gradients_ = large_zeros(numel, options);
  compute_ = compute_dtype == at::kFloat
      ? master_
      : large_zeros(numel, options.dtype(compute_dtype));
  for (FlatEntry& entry : entries_) {
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, entry.offset, entry.numel)
          .view(entry.parameter.sizes());
    };
    entry.master = view(master_);
    entry.master.copy_(entry.parameter);
    const at::Tensor place = view(compute_);
    place.copy_(entry.master);
    put(entry, place);
    entry.slot.grad = view(gradients_);
  }
  if (auto* direct = dynamic_cast<DirectGradients*>(&module)) {
    direct->bind_gradients([&](const at::Tensor& parameter) {
      const auto found = std::find_if(
          entries_.begin(), entries_.end(), [&](const FlatEntry& entry) {
            return entry.parameter.is_same(parameter);
          });
      TORCH_INTERNAL_ASSERT(found != entries_.end());
      return &found->slot;
    });
  }
}

void FlatParameters::begin_step() {
  for (FlatEntry& entry : entries_) {
    check_place(entry);
    entry.slot.fresh = true;
    entry.parameter.mutable_grad().reset();
  }
}

void FlatParameters::collect() {
  const at::NoGradGuard no_grad;
  for (FlatEntry& entry : entries_) {
    entry.slot.collect(entry.parameter);
  }
}

std::vector<FlatRange> FlatParameters::ranges_with_gradient() const {
  std::vector<FlatRange> ranges;
  for (const FlatEntry& entry : entries_) {
    if (entry.slot.fresh || entry.numel == 0) {
      continue;
    }
    if (!ranges.empty() && ranges.back().end == entry.offset) {
      ranges.back().end += entry.numel;
    } else {
      ranges.push_back({entry.offset, entry.offset + entry.numel});
    }
  }
  return ranges;
}

void FlatParameters::refresh_compute() {
  if (has_separate_master()) {
    compute_.copy_(master_);
  }
}

} // namespace deepspeed::flat
