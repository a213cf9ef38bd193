// One param group on flat buffers, and the shard of it that this rank owns.
#include "deepspeed/zero/flat_group.h"

#include <utility>

#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::zero {

using checkpoint::Overlap;
using checkpoint::overlap_of;

FlatGroup::FlatGroup(
    flat::NamedParameters parameters,
    const Placement& placement)
    : order_(std::move(parameters)) {
  const int ranks = placement.ranks->size();
  const int64_t padded = checkpoint::padded_numel(numel(), ranks);
  counted_ = checkpoint::shard_of(numel(), ranks, placement.ranks->rank());
  shard_ =
      placement.stage == 0 ? checkpoint::Shard{0, padded, numel()} : counted_;
  for (int rank = 0; rank <= ranks; ++rank) {
    bounds_.push_back(padded / ranks * rank);
  }
  weights_ = make_weight_store(placement, padded, shard_);
  gradients_ = make_gradient_store(placement, padded, shard_);
  master_ = placement.compute_dtype == at::kFloat
      ? weights_->own()
      : flat::large_zeros(shard_.size, at::kFloat);
  if (has_separate_master()) { // before they are rounded
    const at::NoGradGuard no_grad;
    for (const flat::FlatEntry& entry : entries()) {
      const Overlap own = overlap_of(shard_, entry.offset, entry.numel);
      if (own.numel > 0) {
        master_.narrow(0, own.in_shard, own.numel)
            .copy_(entry.parameter.reshape({-1}).narrow(
                0, own.in_parameter, own.numel));
      }
    }
  }
  order_.move_to(weights_->module_weights(), gradients_->whole());
  weights_->pull(0, padded);
}

optim::ShardTensors FlatGroup::tensors() const {
  return {
      master_,
      gradients_->shard(),
      has_separate_master() ? weights_->own() : at::Tensor()};
}

std::vector<const flat::FlatEntry*> FlatGroup::take_changes() {
  std::vector<const flat::FlatEntry*> changed;
  order_.take_changes([&](const flat::FlatEntry& entry) {
    take_values(entry);
    changed.push_back(&entry);
  });
  return changed;
}

void FlatGroup::take_values(const flat::FlatEntry& entry) {
  const at::NoGradGuard no_grad;
  weights_->pull(entry.offset, entry.offset + entry.numel);
  const Overlap own = overlap_of(shard_, entry.offset, entry.numel);
  if (own.numel > 0 && has_separate_master()) {
    flat::take_values(
        weights_->own().narrow(0, own.in_shard, own.numel),
        master_.narrow(0, own.in_shard, own.numel));
  }
}

void FlatGroup::refresh_own() {
  if (has_separate_master()) {
    weights_->own().copy_(master_);
  }
}

} // namespace deepspeed::zero
