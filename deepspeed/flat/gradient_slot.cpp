// Where the gradient of a parameter goes, for autograd and for fused blocks.
#include "deepspeed/flat/gradient_slot.h"

namespace deepspeed::flat {

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
  const bool add = !slot->fresh;
  slot->fresh = false;
  return {slot->grad, add};
}

} // namespace deepspeed::flat
