// Where the gradient of a parameter goes, for autograd and for fused blocks.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "deepspeed/flat/row_consumer.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// Gradients of some rows of a matrix, beside its dense gradient.
struct RowGradients {
  std::vector<int64_t> rows; // ascending, each once
  at::Tensor values; // [rows, columns], fp32
};

// The place of one parameter's gradient in the flat gradient buffer.
//
// Nothing is zeroed between steps: the first writer of a step overwrites, every
// later one adds. A slot that is still fresh after backward belongs to a
// parameter that got no gradient (torch's grad == None).
struct GradientSlot {
  struct Target {
    at::Tensor grad;
    bool add = false; // false: overwrite
  };

  at::Tensor grad; // fp32, the parameter's shape, a view of the flat buffer
  bool fresh = true;
  // Called before the first write of a step, to make room: sets `grad`. Empty
  // for slots that always have their place.
  std::function<void()> make_room;

  // The last writers have gradients for a few rows only, and ask late_rows()
  // first: an embedding that is tied to the output layer. Set by the module.
  bool rows_come_last = false;
  // No gradient ever comes, and nobody waits for one. Set by the module.
  bool is_unused = false;
  // Somebody waits for autograd to come to the parameter after the last writer
  // of a backward pass: a hook there.
  bool is_awaited = false;
  // Called by dense_is_complete(); empty where nobody wants to know.
  std::function<void()> on_dense;
  // Set by on_dense: the dense gradient is on its way, rows go here.
  std::optional<RowGradients> late;
  // `grad` is on its way to the other ranks: the target of what still comes in
  // this backward pass, as autograd may come to a parameter more than once.
  // Set together with `late`, too.
  bool is_handed_over = false;
  std::function<Target()> take_again;
  // Takes the dense gradient of the step, instead of `grad`; or null.
  RowConsumer* consumer = nullptr;

  // To be called by each writer, once for each backward pass.
  Target take();
  // By the writer after which only rows come in this backward pass.
  void dense_is_complete();
  // Before take(), by the writer of a dense gradient: who gets its rows; null:
  // take()'s target does.
  RowConsumer* row_consumer() const;
  // Where rows go, once; null: they are added to take(), as all gradients.
  RowGradients* late_rows() {
    return late && !late->values.defined() ? &*late : nullptr;
  }
  // Moves a gradient that autograd left in parameter.grad() here. One that is
  // not dense is made so.
  void collect(const at::Tensor& parameter);
};

// A module whose blocks write gradients straight into slots. Such a block gives
// autograd an undefined tensor for the parameter. Modules without fused blocks
// need nothing special: FlatParameters::collect() moves what autograd left.
class DirectGradients {
 public:
  virtual ~DirectGradients() = default;

  // Called once, after the parameters have moved into the flat buffer. The
  // module keeps the pointers: slots live as long as the FlatParameters.
  virtual void bind_gradients(
      const std::function<GradientSlot*(const at::Tensor& parameter)>&
          slot_of) = 0;
};

// The gradient outputs of one fused block, in the order of its parameters.
//
// For each parameter the block asks for the target and fills or adds to it;
// results() is what its backward returns to autograd. A null slot (a module
// that is not bound) gets a tensor of its own.
class GradientOutputs {
 public:
  GradientOutputs(
      std::vector<GradientSlot*> slots,
      const std::vector<at::Tensor>& parameters);

  using Target = GradientSlot::Target;
  // To be called once for each parameter that gets a gradient in this pass.
  Target take(size_t parameter);
  // GradientSlot's, for a parameter that is bound; else nothing, and null.
  void dense_is_complete(size_t parameter);
  RowGradients* late_rows(size_t parameter);
  // Before take(): who takes the rows of this gradient, or null.
  RowConsumer* consumer(size_t parameter) const;
  // One tensor for each parameter; undefined where a slot holds the gradient.
  std::vector<at::Tensor>& results() {
    return results_;
  }

 private:
  std::vector<GradientSlot*> slots_;
  const std::vector<at::Tensor>& parameters_;
  std::vector<at::Tensor> results_;
};

} // namespace deepspeed::flat
