// The parameters of a module in one flat buffer, and their gradients in
// another.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/flat/gradient_slot.h"

namespace deepspeed::flat {

// One parameter and its place. Tensors are views of the flat buffers.
struct FlatEntry {
  std::string name; // as module.named_parameters() says it
  at::Tensor parameter; // the module's own tensor, compute dtype
  at::Tensor master; // fp32; the same memory as `parameter` in fp32 training
  GradientSlot slot;
  int64_t offset = 0; // elements from the start of the flat buffers
  int64_t numel = 0;
  const void* place = nullptr; // where `parameter` has been put
  int64_t version = 0; // of `parameter`, when its values were last ours
};

// The parameter moves to `place`, a view of a flat buffer.
void put(FlatEntry& entry, const at::Tensor& place);
// std::logic_error when it is not there any more: the module was moved, cast or
// loaded by somebody, and what is trained is not what it computes with.
void check_place(const FlatEntry& entry);

// A range of the flat buffers, in elements.
struct FlatRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Moves the parameters of `module` (fp32 when it comes) into flat buffers, in
// the order of module.parameters(), the order that DeepSpeed's files have. One
// that is registered under several names counts once. Error(config) when two
// tensors share memory. With bf16 or fp16 compute, weights are changed in the
// master buffer, followed by refresh_compute().
//
// The compute buffer holds what forward and backward use; the master buffer
// holds fp32 weights, which keep the fp32 initialisation exactly. With fp32
// compute both are one buffer. Gradients accumulate in fp32 whatever the
// compute dtype. Not thread-safe; the module must outlive the object.
class FlatParameters {
 public:
  FlatParameters(torch::nn::Module& module, at::ScalarType compute_dtype);
  FlatParameters(const FlatParameters&) = delete;
  FlatParameters& operator=(const FlatParameters&) = delete;

  int64_t numel() const {
    return master_.numel();
  }
  // [numel], compute dtype.
  const at::Tensor& compute() const {
    return compute_;
  }
  // [numel], fp32.
  const at::Tensor& master() const {
    return master_;
  }
  // [numel], fp32; only ranges of parameters with a gradient mean anything.
  const at::Tensor& gradients() const {
    return gradients_;
  }
  std::vector<FlatEntry>& entries() {
    return entries_;
  }
  const std::vector<FlatEntry>& entries() const {
    return entries_;
  }
  bool has_separate_master() const {
    return compute_.scalar_type() != at::kFloat;
  }

  // Forgets all gradients. Costs nothing: no memory is touched. Checks places.
  void begin_step();
  // Moves gradients that autograd left in parameter.grad() into the slots. To
  // be called after each backward.
  void collect();
  // Neighbouring parameters that have a gradient, joined.
  std::vector<FlatRange> ranges_with_gradient() const;
  // Rounds the master weights into the compute buffer, after a load.
  void refresh_compute();

 private:
  at::Tensor master_;
  at::Tensor compute_;
  at::Tensor gradients_;
  std::vector<FlatEntry> entries_;
};

} // namespace deepspeed::flat
