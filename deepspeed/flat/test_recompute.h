// A part of a module that is computed again in backward, as programs write it:
// with a backward pass inside of a backward pass.
#pragma once

#include <functional>
#include <utility>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

using Segment = std::function<at::Tensor(const at::Tensor&)>;

struct SegmentHolder : torch::CustomClassHolder {
  explicit SegmentHolder(Segment segment) : segment(std::move(segment)) {}
  Segment segment;
};

struct Recomputed : torch::autograd::Function<Recomputed> {
  static at::Tensor forward(
      torch::autograd::AutogradContext* context,
      const at::Tensor& input,
      const c10::intrusive_ptr<SegmentHolder>& holder) {
    context->save_for_backward({input});
    context->saved_data["segment"] = c10::IValue::make_capsule(holder);
    const at::NoGradGuard no_grad;
    return holder->segment(input);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    const auto capsule = context->saved_data["segment"].toCapsule();
    at::Tensor input = context->get_saved_variables()[0].detach();
    input.requires_grad_();
    const at::AutoGradMode with_graph(true);
    const at::Tensor output =
        static_cast<SegmentHolder&>(*capsule).segment(input);
    torch::autograd::backward({output}, {gradients[0]});
    return {input.grad(), at::Tensor()};
  }
};

// segment(input); `input` requires a gradient.
inline at::Tensor recomputed(const at::Tensor& input, Segment segment) {
  return Recomputed::apply(
      input, c10::make_intrusive<SegmentHolder>(std::move(segment)));
}

} // namespace deepspeed::flat
