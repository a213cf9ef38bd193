// Coarse autograd functions: one node for each block of the model.
#include "deepspeed/bert/block.h"

namespace deepspeed::bert {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Carries the block through the context, which holds IValues.
struct BlockHolder : torch::CustomClassHolder {
  BlockHolder(std::shared_ptr<Block> b, const BlockParameters* p)
      : block(std::move(b)), parameters(p) {}

  std::shared_ptr<Block> block;
  const BlockParameters* parameters;
};

struct BlockFunction : public torch::autograd::Function<BlockFunction> {
  static at::Tensor forward(
      AutogradContext* context,
      const std::optional<at::Tensor>& input,
      at::TensorList /*parameters, for their edges in the graph*/,
      const c10::intrusive_ptr<BlockHolder>& holder) {
    context->saved_data["block"] = c10::IValue::make_capsule(holder);
    return holder->block->forward(input.value_or(at::Tensor()));
  }

  static variable_list backward(
      AutogradContext* context,
      const variable_list& output_gradients) {
    const auto capsule = context->saved_data["block"].toCapsule();
    auto& holder = static_cast<BlockHolder&>(*capsule);
    const BlockParameters& parameters = *holder.parameters;
    const base::Span span(parameters.pass("backward"));
    TORCH_CHECK(
        holder.block != nullptr, "backward through a block a second time");
    flat::GradientOutputs gradients(parameters.slots, parameters.tensors);
    // The order of the inputs: input, parameters, holder.
    variable_list inputs{
        holder.block->backward(output_gradients[0], gradients)};
    holder.block.reset(); // activations are not needed any more
    for (at::Tensor& gradient : gradients.results()) {
      inputs.push_back(std::move(gradient));
    }
    inputs.emplace_back();
    return inputs;
  }
};

} // namespace

at::Tensor apply_block(
    const at::Tensor& input,
    const BlockParameters& parameters,
    std::shared_ptr<Block> block) {
  if (!at::GradMode::is_enabled()) {
    return block->forward(input);
  }
  const auto optional_input =
      input.defined() ? std::optional<at::Tensor>(input) : std::nullopt;
  const at::TensorList tensors = parameters.tensors;
  return BlockFunction::apply(
      optional_input,
      tensors,
      c10::make_intrusive<BlockHolder>(std::move(block), &parameters));
}

} // namespace deepspeed::bert
