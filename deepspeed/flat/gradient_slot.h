// Where the gradient of a parameter goes, for autograd and for fused blocks.
#pragma once

#include <functional>
#include <vector>

#include "deepspeed/flat/gradient_target.h"
#include "deepspeed/flat/row_consumer.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// Gradients of some rows of a matrix, beside its dense gradient.
struct RowGradients {
  std::vector<int64_t> rows; // ascending, each once
  at::Tensor values; // [rows, columns], fp32
};

// What a module says of the gradients of its parameter, when it is bound.
struct GradientTraits {
  // The last writers have gradients for a few rows only, and ask late_rows()
  // first: an embedding that is tied to the output layer.
  bool rows_come_last = false;
  // No gradient ever comes, and nobody waits for one.
  bool is_unused = false;
};

// Who sums a gradient over the ranks while backward runs: told what happens to
// one parameter. Called on the thread of the backward pass.
class GradientObserver {
 public:
  virtual ~GradientObserver() = default;

  // Before the first write of a step: there is a place afterwards.
  virtual void make_room() = 0;
  // The writer after which only rows come has written.
  virtual void on_dense() = 0;
  // The gradient is on its way to the other ranks: the target of what still
  // comes in this backward pass, as autograd may come to a parameter more than
  // once.
  virtual GradientTarget take_again() = 0;
  // Where rows go, once; null: they are added to the dense gradient.
  virtual RowGradients* late_rows() = 0;
};

// The place of one parameter's gradient. Three parties meet here: the module
// has bound its traits, whoever sums over ranks observes, and whoever updates
// may take rows as they come.
//
// Nothing is zeroed between steps: the first writer of a step overwrites, every
// later one adds. A slot that is still fresh after backward belongs to a
// parameter that got no gradient (torch's grad == None).
class GradientSlot {
 public:
  GradientTraits traits;
  GradientObserver* observer = nullptr; // null: nobody waits
  // Takes the dense gradient of the step, instead of grad(); or null.
  RowConsumer* consumer = nullptr;

  // fp32, the parameter's shape, a view of a flat buffer; undefined while there
  // is no room for it.
  const at::Tensor& grad() const {
    return grad_;
  }
  void set_place(at::Tensor grad) {
    grad_ = std::move(grad);
  }
  // Nothing was written in this step.
  bool is_fresh() const {
    return fresh_;
  }
  void begin_step() {
    fresh_ = true;
    handed_over_ = false;
  }
  // By the observer: until the next step, what is here belongs to it.
  void hand_over() {
    handed_over_ = true;
  }
  bool is_handed_over() const {
    return handed_over_;
  }
  // By the observer, of a slot that is still fresh: as if zeros had come.
  void write_zeros();

  // To be called by each writer, once for each backward pass.
  GradientTarget take();
  // By the writer after which only rows come in this backward pass.
  void dense_is_complete();
  // Before take(), by the writer of a dense gradient: who gets its rows; null:
  // take()'s target does.
  RowConsumer* row_consumer() const;
  // Where rows go, once; null: they are added to take(), as all gradients.
  RowGradients* late_rows() {
    return observer == nullptr ? nullptr : observer->late_rows();
  }
  // Moves a gradient that autograd left in parameter.grad() here. One that is
  // not dense is made so.
  void collect(const at::Tensor& parameter);

 private:
  at::Tensor grad_;
  bool fresh_ = true;
  bool handed_over_ = false;
};

// A module whose blocks write gradients straight into slots. Such a block gives
// autograd an undefined tensor for the parameter. Modules without fused blocks
// need nothing special: what autograd left is moved.
class DirectGradients {
 public:
  virtual ~DirectGradients() = default;

  // Called once, after the parameters have moved into the flat buffer. The
  // module keeps the pointers: slots live as long as the flat parameters. Null
  // for a parameter that is not trained.
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

  using Target = GradientTarget;
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
