// Parameters of a module in one flat buffer, and their gradients in another.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deepspeed/flat/aliases.h"
#include "deepspeed/flat/gradient_slot.h"

namespace deepspeed::flat {

// One parameter and its place.
struct FlatEntry {
  std::string name; // as module.named_parameters() says it
  at::Tensor parameter; // the module's own tensor: a view of the flat weights
  GradientSlot slot;
  int64_t offset = 0; // elements from the start of the flat buffers
  int64_t numel = 0;
  const void* place = nullptr; // where `parameter` has been put
  int64_t version = 0; // of `parameter`, when its values were last ours

  // Its elements in a flat buffer, in its shape.
  at::Tensor view_of(const at::Tensor& flat) const {
    return flat.narrow(0, offset, numel).view(parameter.sizes());
  }
};

// A range of the flat buffers, in elements.
struct FlatRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Each parameter once, however many names it has: the order of
// module.parameters(), which DeepSpeed's files have.
NamedParameters distinct_parameters(const torch::nn::Module& module);

// Which parameters lie where in flat buffers, whoever owns these. Not
// thread-safe; the module must outlive the object.
class FlatOrder {
 public:
  explicit FlatOrder(NamedParameters parameters);
  FlatOrder(const FlatOrder&) = delete;
  FlatOrder& operator=(const FlatOrder&) = delete;

  int64_t numel() const {
    return numel_;
  }
  std::vector<FlatEntry>& entries() {
    return entries_;
  }
  const std::vector<FlatEntry>& entries() const {
    return entries_;
  }
  // Null: it is none of them.
  FlatEntry* find(const at::Tensor& parameter);

  // Copies the values of the parameters to `flat` [>= numel, any dtype].
  void copy_values_to(const at::Tensor& flat) const;
  // The parameters become views of `weights` [>= numel], whose values they get.
  // Gradients go to `gradients` [>= numel, fp32]; undefined: each slot gets a
  // place when an observer makes room.
  void move_to(const at::Tensor& weights, const at::Tensor& gradients);

  // Forgets all gradients. Costs nothing: no memory is touched.
  void forget_gradients();
  // take(entry) for each whose values were changed in place since the last
  // call, in the module (by clamp_(), or a copy of other weights).
  // std::logic_error when one is not where it was put: the module was moved,
  // cast or loaded by somebody.
  void take_changes(const std::function<void(const FlatEntry&)>& take);

 private:
  int64_t numel_ = 0;
  std::vector<FlatEntry> entries_;
};

// All parameters of a module in buffers of their own, in the memory of their
// device: what a plain training loop needs.
//
// Moves the parameters (fp32 when they come) into the buffers. Error(config)
// when two tensors share memory. The compute buffer holds what forward and
// backward use; the master buffer holds fp32 weights, which keep the fp32
// initialisation exactly. With fp32 compute both are one buffer. With bf16 or
// fp16, weights are changed in the master buffer, followed by
// refresh_compute(). Gradients accumulate in fp32 whatever the compute dtype.
class FlatParameters : public FlatOrder {
 public:
  FlatParameters(torch::nn::Module& module, at::ScalarType compute_dtype);

  // [numel], compute dtype.
  const at::Tensor& compute() const {
    return compute_;
  }
  // [numel], fp32.
  const at::Tensor& master() const {
    return master_;
  }
  // fp32 weights of one parameter, a view of master().
  at::Tensor master(const FlatEntry& entry) const {
    return entry.view_of(master_);
  }
  // [numel], fp32; only ranges of parameters with a gradient mean anything.
  const at::Tensor& gradients() const {
    return gradients_;
  }
  bool has_separate_master() const {
    return compute_.scalar_type() != at::kFloat;
  }

  // Forgets all gradients, and takes changes.
  void begin_step();
  // Moves gradients that autograd left in parameter.grad() into the slots. To
  // be called after each backward. Takes changes.
  void collect();
  // Checks that the parameters are where they were put. What was changed in
  // place in the module since the last call goes on to the master weights,
  // which else would undo it; a line says so once. The optimizer calls it
  // before an update; a program calls it before it reads master().
  void take_changes();
  // Neighbouring parameters that have a gradient, joined.
  std::vector<FlatRange> ranges_with_gradient() const;
  // Rounds the master weights into the compute buffer, after a load.
  void refresh_compute();

 private:
  at::Tensor master_;
  at::Tensor compute_;
  at::Tensor gradients_;
  bool changes_named_ = false;
};

// Gives a module with fused blocks the slots that it writes to.
void bind_slots(
    torch::nn::Module& module,
    const std::function<GradientSlot*(const at::Tensor& parameter)>& slot_of);

// Elements of `master` whose value in the dtype of `values` has changed get the
// new one; the others keep their fp32 value. Both 1-D, equally long.
void take_values(const at::Tensor& values, const at::Tensor& master);

} // namespace deepspeed::flat
