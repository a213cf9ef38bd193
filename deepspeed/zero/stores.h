// Where the flat weights and gradients of a param group are kept, on this rank:
// made once from what is asked for, so that nobody else asks for stage, dtype
// or device.
//
// A place is a type here. Ranges are in elements of the flat buffer, which is
// padded so that all ranks own equally much.
#pragma once

#include <memory>

#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/comm/process_group.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::zero {

// What is asked for.
struct Placement {
  int stage = 0; // 0, 1 or 2
  at::ScalarType compute_dtype = at::kFloat;
  comm::ProcessGroup* ranks = nullptr;
  // Where the module computes. All that the optimizer needs is in host memory
  // in any case: on a GPU this is ZeRO-Offload (Ren et al., 2021).
  at::Device device = at::kCPU;
  // Gradients are summed and weights gathered where the module computes, and
  // only the own shard comes to host memory: between GPUs with NCCL.
  bool exchange_on_device = false;
  // Page-locked host memory, where there is a GPU and it need not be shared.
  bool pin_memory = true;
  // A gradient has a place from the start of the step, as more is added to it;
  // else, in stage 2, only from its first write until its bucket is summed.
  bool whole_gradients = true;
};

// The weights of a param group, in the compute dtype, and the fp32 weights of
// the own shard.
class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // [padded], where the module computes: the parameters are views of it.
  virtual const at::Tensor& module_weights() const = 0;
  // [padded], what the ranks exchange.
  virtual const at::Tensor& exchanged() const = 0;
  // [shard size], in host memory: what the update writes.
  virtual const at::Tensor& own() const = 0;

  // [end - begin] of the module's weights: the same memory, or a copy.
  virtual at::Tensor in_host_memory(int64_t begin, int64_t end) const = 0;

  // own() has changed: exchanged() gets it.
  virtual void push_own() = 0;
  // exchanged() has changed: module_weights() gets it.
  virtual void push_all() = 0;
  // The module's weights [begin, end) have changed: the others get them.
  virtual void pull(int64_t begin, int64_t end) = 0;
};

// The gradients of a param group, fp32.
class GradientStore {
 public:
  virtual ~GradientStore() = default;

  // [padded], where the module computes; undefined where a gradient has room
  // only for a while.
  virtual at::Tensor whole() const = 0;
  // [end - begin], where backward writes.
  virtual at::Tensor open(int64_t begin, int64_t end) = 0;
  // Where the ranks sum what was opened; it may be the same memory.
  virtual at::Tensor to_exchange(
      int64_t begin,
      int64_t end,
      const at::Tensor& opened) = 0;
  // Summed: the part of this rank goes to shard().
  virtual void keep(int64_t begin, int64_t end, const at::Tensor& summed) = 0;
  // Whether what was opened is to be let go when it is kept.
  bool is_temporary() const {
    return !whole().defined();
  }
  // [shard size], in host memory: the sums.
  const at::Tensor& shard() const {
    return shard_;
  }

 protected:
  at::Tensor shard_;
};

std::unique_ptr<WeightStore> make_weight_store(
    const Placement& placement,
    int64_t padded,
    const checkpoint::Shard& shard);

std::unique_ptr<GradientStore> make_gradient_store(
    const Placement& placement,
    int64_t padded,
    const checkpoint::Shard& shard);

} // namespace deepspeed::zero
