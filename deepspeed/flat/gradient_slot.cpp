// Where the gradient of a parameter goes, for autograd and for fused blocks.
#include "deepspeed/flat/gradient_slot.h"

#include <stdexcept>
#include <utility>

namespace deepspeed::flat {

GradientTarget GradientSlot::take() {
  if (handed_over_) {
    return observer->take_again();
  }
  if (fresh_ && observer != nullptr) {
    observer->make_room();
  }
  return {grad_, !std::exchange(fresh_, false)};
}

void GradientSlot::write_zeros() {
  handed_over_ = false;
  take().grad.zero_();
}

void GradientSlot::dense_is_complete() {
  if (observer != nullptr) {
    observer->on_dense();
  }
}

RowConsumer* GradientSlot::row_consumer() const {
  if (consumer != nullptr && !fresh_) {
    throw std::logic_error(
        "a gradient that is used as it comes came a second time: one backward "
        "pass for each start_early()");
  }
  return consumer;
}

void GradientSlot::collect(const at::Tensor& parameter) {
  at::Tensor& left = parameter.mutable_grad();
  if (!left.defined()) {
    return;
  }
  const GradientTarget target = take();
  // Embedding with `sparse` leaves a sparse one.
  const at::Tensor dense =
      left.layout() == at::kStrided ? left : left.to_dense();
  if (target.add) {
    target.grad.add_(dense);
  } else {
    target.grad.copy_(dense);
  }
  left.reset();
}

GradientOutputs::GradientOutputs(
    std::vector<GradientSlot*> slots,
    const std::vector<at::Tensor>& parameters)
    : slots_(std::move(slots)),
      parameters_(parameters),
      results_(parameters.size()) {
  slots_.resize(parameters.size(), nullptr);
}

GradientOutputs::Target GradientOutputs::take(size_t parameter) {
  GradientSlot* slot = slots_[parameter];
  if (slot == nullptr) {
    results_[parameter] = at::empty(
        parameters_[parameter].sizes(),
        parameters_[parameter].options().dtype(at::kFloat));
    return {results_[parameter], false};
  }
  return slot->take();
}

void GradientOutputs::dense_is_complete(size_t parameter) {
  if (slots_[parameter] != nullptr) {
    slots_[parameter]->dense_is_complete();
  }
}

RowGradients* GradientOutputs::late_rows(size_t parameter) {
  GradientSlot* slot = slots_[parameter];
  return slot == nullptr ? nullptr : slot->late_rows();
}

RowConsumer* GradientOutputs::consumer(size_t parameter) const {
  const GradientSlot* slot = slots_[parameter];
  return slot == nullptr ? nullptr : slot->row_consumer();
}

} // namespace deepspeed::flat
