// One param group on flat buffers, and the shard of it that this rank owns.
#include "deepspeed/zero/flat_group.h"

#include <utility>

#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::zero {

using checkpoint::Overlap;
using checkpoint::overlap_of;

FlatGroup::FlatGroup(
    std::vector<NamedParameter> parameters,
    const Layout& layout) {
  for (NamedParameter& parameter : parameters) {
    flat::FlatEntry entry;
    entry.name = std::move(parameter.name);
    entry.parameter = std::move(parameter.tensor);
    entry.offset = numel_;
    entry.numel = entry.parameter.numel();
    numel_ += entry.numel;
    entries_.push_back(std::move(entry));
  }
  const int ranks = layout.ranks->size();
  const int64_t padded = checkpoint::padded_numel(numel_, ranks);
  counted_ = checkpoint::shard_of(numel_, ranks, layout.ranks->rank());
  shard_ = layout.stage == 0 ? checkpoint::Shard{0, padded, numel_} : counted_;
  for (int rank = 0; rank <= ranks; ++rank) {
    bounds_.push_back(padded / ranks * rank);
  }
  allocate(layout, padded);
  adopt(layout);
}

void FlatGroup::allocate_on_device(const Layout& layout, int64_t padded) {
  const auto host = [&](at::ScalarType dtype) {
    const bool pinned = !layout.device.is_cpu() && layout.pin_memory;
    return at::zeros(
        {shard_.size}, at::TensorOptions(dtype).pinned_memory(pinned));
  };
  const auto device = [&](at::ScalarType dtype) {
    return at::zeros({padded}, at::TensorOptions(dtype).device(layout.device));
  };
  compute_ = device(layout.compute_dtype);
  module_compute_ = compute_;
  host_shard_ = host(layout.compute_dtype);
  if (layout.whole_gradients) {
    gradients_ = device(at::kFloat);
    module_gradients_ = gradients_;
  }
  shard_gradient_ = host(at::kFloat);
}

void FlatGroup::allocate(const Layout& layout, int64_t padded) {
  if (layout.exchange_on_device) {
    allocate_on_device(layout, padded);
    return;
  }
  const bool on_gpu = !layout.device.is_cpu();
  const bool pinned = on_gpu && layout.pin_memory && layout.ranks->size() == 1;
  const auto host = [&](at::ScalarType dtype) {
    return pinned
        ? at::zeros({padded}, at::TensorOptions(dtype).pinned_memory(true))
        : layout.ranks->allocate(padded, dtype);
  };
  compute_ = host(layout.compute_dtype);
  host_shard_ = compute_.narrow(0, shard_.offset, shard_.size);
  module_compute_ = on_gpu ? compute_.to(layout.device) : compute_;
  if (layout.whole_gradients) {
    gradients_ = host(at::kFloat);
    module_gradients_ = on_gpu ? gradients_.to(layout.device) : gradients_;
    shard_gradient_ = gradients_.narrow(0, shard_.offset, shard_.size);
  } else {
    shard_gradient_ = flat::large_zeros(shard_.size, at::kFloat);
  }
}

void FlatGroup::adopt(const Layout& layout) {
  const at::NoGradGuard no_grad;
  const bool separate = layout.compute_dtype != at::kFloat;
  master_ = separate ? flat::large_zeros(shard_.size, at::kFloat) : host_shard_;
  for (flat::FlatEntry& entry : entries_) {
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, entry.offset, entry.numel)
          .view(entry.parameter.sizes());
    };
    const at::Tensor place = view(module_compute_);
    view(compute_).copy_(entry.parameter);
    if (!module_compute_.is_same(compute_)) {
      place.copy_(entry.parameter);
    }
    const Overlap own = overlap_of(shard_, entry.offset, entry.numel);
    if (separate && own.numel > 0) {
      master_.narrow(0, own.in_shard, own.numel)
          .copy_(entry.parameter.reshape({-1}).narrow(
              0, own.in_parameter, own.numel));
    }
    if (gradients_.defined()) {
      entry.slot.grad = view(module_gradients_);
    }
    entry.parameter.mutable_grad().reset();
    put(entry, place);
  }
  if (layout.exchange_on_device) {
    host_shard_.copy_(compute_.narrow(0, shard_.offset, shard_.size));
  }
}

at::Tensor FlatGroup::shard_compute() const {
  return compute_.scalar_type() == at::kFloat ? at::Tensor() : host_shard_;
}

std::vector<std::string> FlatGroup::take_changes() {
  std::vector<std::string> names;
  for (flat::FlatEntry& entry : entries_) {
    check_place(entry);
    const int64_t version = entry.parameter._version();
    if (version != std::exchange(entry.version, version)) {
      take_values(entry);
      names.push_back(entry.name);
    }
  }
  return names;
}

void FlatGroup::take_values(const flat::FlatEntry& entry) {
  const at::NoGradGuard no_grad;
  const at::Tensor values = entry.parameter.detach().reshape({-1});
  if (!module_compute_.is_same(compute_)) {
    compute_.narrow(0, entry.offset, entry.numel).copy_(values);
  }
  const Overlap own = overlap_of(shard_, entry.offset, entry.numel);
  if (own.numel == 0) {
    return;
  }
  const at::Tensor shard = values.narrow(0, own.in_parameter, own.numel).cpu();
  if (!host_shard_.is_alias_of(compute_)) {
    host_shard_.narrow(0, own.in_shard, own.numel).copy_(shard);
  }
  if (!master_.is_same(host_shard_)) {
    const at::Tensor master = master_.narrow(0, own.in_shard, own.numel);
    master.copy_(at::where(
        master.to(shard.scalar_type()) == shard, master, shard.to(at::kFloat)));
  }
}

void FlatGroup::refresh_compute() {
  const at::Tensor own = shard_compute();
  if (own.defined()) {
    own.copy_(master_);
  }
}

void FlatGroup::push_shard() {
  if (!host_shard_.is_alias_of(compute_)) {
    compute_.narrow(0, shard_.offset, shard_.size).copy_(host_shard_);
  }
}

void FlatGroup::push_weights() {
  if (!module_compute_.is_same(compute_)) {
    module_compute_.copy_(compute_);
  }
}

} // namespace deepspeed::zero
