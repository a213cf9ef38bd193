// One param group on flat buffers, and the shard of it that this rank owns.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/comm/process_group.h"
#include "deepspeed/flat/flat_parameters.h"

namespace deepspeed::zero {

struct NamedParameter {
  std::string name;
  at::Tensor tensor; // the module's own
};

// How the param groups of an engine lie in memory.
struct Layout {
  int stage = 0; // 0, 1 or 2
  at::ScalarType compute_dtype = at::kFloat;
  // Every rank has room for all gradients. Without it (stage 2) a gradient has
  // a place only from its first write until its bucket is reduced.
  bool whole_gradients = true;
  comm::ProcessGroup* ranks = nullptr;
  // Where the module computes. All that the optimizer needs is in host memory
  // in any case: on a GPU this is ZeRO-Offload (Ren et al., 2021).
  at::Device device = at::kCPU;
  // Gradients are summed and weights gathered where the module computes, and
  // only the own shard comes to host memory: between GPUs with NCCL.
  bool exchange_on_device = false;
  // Page-locked host memory, where there is a GPU and it need not be shared.
  bool pin_memory = true;
};

// Moves parameters (of any floating dtype) into a flat buffer of the compute
// dtype, padded with zeros so that all ranks own equally much: the layout of
// DeepSpeed's files. The fp32 master weights are kept for the own shard only,
// and are the compute buffer itself in fp32 training. In stage 0 every rank
// owns all. Not thread-safe; the module must outlive the object.
class FlatGroup {
 public:
  FlatGroup(std::vector<NamedParameter> parameters, const Layout& layout);
  FlatGroup(const FlatGroup&) = delete;
  FlatGroup& operator=(const FlatGroup&) = delete;

  // Without the padding.
  int64_t numel() const {
    return numel_;
  }
  // In flat order. FlatEntry::master is not used here.
  std::vector<flat::FlatEntry>& entries() {
    return entries_;
  }
  const std::vector<flat::FlatEntry>& entries() const {
    return entries_;
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

  // What the ranks exchange: in host memory, or on the device.
  const at::Tensor& compute() const { // [padded], compute dtype
    return compute_;
  }
  const at::Tensor& gradients() const { // [padded], fp32; or undefined
    return gradients_;
  }
  // Where backward writes: gradients(), or a buffer on the GPU.
  const at::Tensor& module_gradients() const {
    return module_gradients_;
  }
  const at::Tensor& master() const { // [shard().size], fp32
    return master_;
  }
  const at::Tensor& shard_gradient() const { // [shard().size], fp32
    return shard_gradient_;
  }
  // The own shard in the compute dtype, in host memory; undefined in fp32,
  // where it is master().
  at::Tensor shard_compute() const;

  // What was changed in place since the last call, in the module's weights (by
  // clamp_(), or a copy of other weights), goes on to master(), which else
  // would undo it. Values that are the same in the compute dtype keep their
  // master. Returns the names; std::logic_error as check_place() has it.
  std::vector<std::string> take_changes();
  // After master() was loaded.
  void refresh_compute();
  // Before compute() is gathered: the own shard goes there.
  void push_shard();
  // After compute() has changed: the module's weights, if they lie elsewhere.
  void push_weights();

 private:
  void allocate(const Layout& layout, int64_t padded);
  void allocate_on_device(const Layout& layout, int64_t padded);
  void adopt(const Layout& layout);
  void take_values(const flat::FlatEntry& entry);

  int64_t numel_ = 0;
  std::vector<flat::FlatEntry> entries_;
  checkpoint::Shard shard_;
  checkpoint::Shard counted_;
  std::vector<int64_t> bounds_;
  at::Tensor compute_;
  at::Tensor host_shard_; // the own shard: a part of compute_, or its copy
  at::Tensor module_compute_; // compute_, or its copy on the GPU
  at::Tensor gradients_;
  at::Tensor module_gradients_;
  at::Tensor master_;
  at::Tensor shard_gradient_;
};

} // namespace deepspeed::zero
