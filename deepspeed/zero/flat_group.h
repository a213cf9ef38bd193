// One param group on flat buffers, and the shard of it that this rank owns.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/flat/flat_parameters.h"
#include "deepspeed/optim/shard_optimizer.h"
#include "deepspeed/zero/stores.h"

namespace deepspeed::zero {

// Moves parameters (of any floating dtype) into a flat buffer of the compute
// dtype, padded with zeros so that all ranks own equally much: the layout of
// DeepSpeed's files. The fp32 master weights are kept for the own shard only,
// and are the weights themselves in fp32 training. In stage 0 every rank owns
// all. Not thread-safe; the module must outlive the object.
class FlatGroup {
 public:
  FlatGroup(flat::NamedParameters parameters, const Placement& placement);

  // Without the padding.
  int64_t numel() const {
    return order_.numel();
  }
  flat::FlatOrder& order() {
    return order_;
  }
  // In flat order.
  std::vector<flat::FlatEntry>& entries() {
    return order_.entries();
  }
  const std::vector<flat::FlatEntry>& entries() const {
    return order_.entries();
  }

  // What this rank updates.
  const checkpoint::Shard& shard() const {
    return shard_;
  }
  // What this rank counts in sums over the group: its shard in every stage, so
  // that sums have the same bits in every stage.
  const checkpoint::Shard& counted() const {
    return counted_;
  }
  // Offsets of the ranks' shards, ranks + 1 of them, also in stage 0.
  const std::vector<int64_t>& bounds() const {
    return bounds_;
  }
  int64_t padded() const {
    return bounds_.back();
  }
  // Whether other ranks update the rest.
  bool is_sharded() const {
    return shard_.size < padded();
  }

  WeightStore& weights() const {
    return *weights_;
  }
  GradientStore& gradients() const {
    return *gradients_;
  }
  const at::Tensor& master() const { // [shard().size], fp32
    return master_;
  }
  // What the optimizer updates.
  optim::ShardTensors tensors() const;

  // What was changed in place since the last call, in the module's weights (by
  // clamp_(), or a copy of other weights), goes on to master(), which else
  // would undo it. Values that are the same in the compute dtype keep their
  // master. Returns what changed; errors are those of
  // FlatOrder::take_changes().
  std::vector<const flat::FlatEntry*> take_changes();
  // After master() was loaded.
  void refresh_own();

 private:
  void take_values(const flat::FlatEntry& entry);
  bool has_separate_master() const {
    return !master_.is_same(weights_->own());
  }

  flat::FlatOrder order_;
  checkpoint::Shard shard_;
  checkpoint::Shard counted_;
  std::vector<int64_t> bounds_;
  std::unique_ptr<WeightStore> weights_;
  std::unique_ptr<GradientStore> gradients_;
  at::Tensor master_;
};

} // namespace deepspeed::zero
