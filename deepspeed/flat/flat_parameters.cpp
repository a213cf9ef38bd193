// Parameters of a module in one flat buffer, and their gradients in another.
#include "deepspeed/flat/flat_parameters.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "deepspeed/base/log.h"
#include "deepspeed/flat/aliases.h"
#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::flat {
namespace {

void check_place(const FlatEntry& entry) {
  if (entry.parameter.const_data_ptr() != entry.place) {
    throw std::logic_error(
        "parameter " + entry.name +
        " is not where it is trained any more: the module was moved, cast or "
        "loaded (to(), set_data(), torch::load()) after its parameters had "
        "been taken. Do that before");
  }
}

} // namespace

NamedParameters distinct_parameters(const torch::nn::Module& module) {
  NamedParameters parameters;
  std::unordered_set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    if (seen.insert(item.value().unsafeGetTensorImpl()).second) {
      parameters.push_back({item.key(), item.value()});
    }
  }
  return parameters;
}

FlatOrder::FlatOrder(NamedParameters parameters) {
  for (auto& [name, parameter] : parameters) {
    FlatEntry entry;
    entry.name = std::move(name);
    entry.parameter = std::move(parameter);
    entry.offset = numel_;
    entry.numel = entry.parameter.numel();
    numel_ += entry.numel;
    entries_.push_back(std::move(entry));
  }
}

FlatEntry* FlatOrder::find(const at::Tensor& parameter) {
  const auto found = std::find_if(
      entries_.begin(), entries_.end(), [&](const FlatEntry& entry) {
        return entry.parameter.is_same(parameter);
      });
  return found == entries_.end() ? nullptr : &*found;
}

void FlatOrder::copy_values_to(const at::Tensor& flat) const {
  const at::NoGradGuard no_grad;
  for (const FlatEntry& entry : entries_) {
    entry.view_of(flat).copy_(entry.parameter);
  }
}

void FlatOrder::move_to(
    const at::Tensor& weights,
    const at::Tensor& gradients) {
  const at::NoGradGuard no_grad;
  copy_values_to(weights);
  for (FlatEntry& entry : entries_) {
    if (gradients.defined()) {
      entry.slot.set_place(entry.view_of(gradients));
    }
    entry.parameter.mutable_grad().reset();
    const at::Tensor place = entry.view_of(weights);
    entry.parameter.set_data(place);
    entry.place = place.const_data_ptr();
    entry.version = entry.parameter._version();
  }
}

void FlatOrder::forget_gradients() {
  for (FlatEntry& entry : entries_) {
    entry.slot.begin_step();
    entry.parameter.mutable_grad().reset();
  }
}

void FlatOrder::take_changes(
    const std::function<void(const FlatEntry&)>& take) {
  for (FlatEntry& entry : entries_) {
    check_place(entry);
    const int64_t version = entry.parameter._version();
    if (version != std::exchange(entry.version, version)) {
      take(entry);
    }
  }
}

FlatParameters::FlatParameters(
    torch::nn::Module& module,
    at::ScalarType compute_dtype)
    : FlatOrder(distinct_parameters(module)) {
  NamedParameters parameters;
  for (const FlatEntry& entry : entries()) {
    TORCH_CHECK_VALUE(
        entry.parameter.scalar_type() == at::kFloat,
        "parameter ",
        entry.name,
        " must be fp32 before it is flattened, but is ",
        entry.parameter.scalar_type());
    parameters.push_back({entry.name, entry.parameter});
  }
  refuse_shared_elements(parameters, {});
  const auto options =
      at::TensorOptions()
          .dtype(at::kFloat)
          .device(
              parameters.empty() ? at::Device(at::kCPU)
                                 : parameters.front().tensor.device());
  master_ = large_zeros(numel(), options);
  gradients_ = large_zeros(numel(), options);
  compute_ = compute_dtype == at::kFloat
      ? master_
      : large_zeros(numel(), options.dtype(compute_dtype));
  copy_values_to(master_);
  move_to(compute_, gradients_);
  bind_slots(module, [&](const at::Tensor& parameter) {
    FlatEntry* const entry = find(parameter);
    TORCH_INTERNAL_ASSERT(entry != nullptr);
    return &entry->slot;
  });
}

void FlatParameters::take_changes() {
  std::vector<std::string> names;
  FlatOrder::take_changes([&](const FlatEntry& entry) {
    if (has_separate_master()) {
      take_values(
          entry.parameter.detach().reshape({-1}),
          master_.narrow(0, entry.offset, entry.numel));
      names.push_back(entry.name);
    }
  });
  if (!names.empty() && !std::exchange(changes_named_, true)) {
    base::log_info(
        "weights were changed in place, training goes on from the new ones: " +
        shortened(names));
  }
}

void FlatParameters::begin_step() {
  take_changes();
  forget_gradients();
}

void FlatParameters::collect() {
  take_changes();
  const at::NoGradGuard no_grad;
  for (FlatEntry& entry : entries()) {
    entry.slot.collect(entry.parameter);
  }
}

std::vector<FlatRange> FlatParameters::ranges_with_gradient() const {
  std::vector<FlatRange> ranges;
  for (const FlatEntry& entry : entries()) {
    if (entry.slot.is_fresh() || entry.numel == 0) {
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

void bind_slots(
    torch::nn::Module& module,
    const std::function<GradientSlot*(const at::Tensor& parameter)>& slot_of) {
  if (auto* direct = dynamic_cast<DirectGradients*>(&module)) {
    direct->bind_gradients(slot_of);
  }
}

void take_values(const at::Tensor& values, const at::Tensor& master) {
  const at::NoGradGuard no_grad;
  master.copy_(at::where(
      master.to(values.scalar_type()) == values,
      master,
      values.to(at::kFloat)));
}

} // namespace deepspeed::flat
