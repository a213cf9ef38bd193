// Coarse autograd functions: one node for each block of the model.
#include "deepspeed/bert/block.h"

namespace deepspeed::bert {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Carries the block through the context, which holds IValues.
struct BlockHolder : torch::CustomClassHolder {
  BlockHolder(
      std::shared_ptr<Block> b,
      const BlockParameters* p,
      std::vector<size_t> n)
      : block(std::move(b)), parameters(p), nodes(std::move(n)) {}

  std::shared_ptr<Block> block;
  const BlockParameters* parameters;
  std::vector<size_t> nodes; // parameters that are part of the graph
};

// The parameters that autograd must come to after the block: a visit costs some
// microseconds, in which the other threads idle. A graph needs one at its
// start.
std::vector<size_t> graph_nodes(
    const at::Tensor& input,
    const BlockParameters& parameters) {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < parameters.tensors.size(); ++i) {
    const flat::GradientSlot* slot =
        parameters.slots.empty() ? nullptr : parameters.slots[i];
    if (slot == nullptr || slot->is_awaited) {
      nodes.push_back(i);
    }
  }
  if (nodes.empty() && !(input.defined() && input.requires_grad())) {
    nodes.push_back(0);
  }
  return nodes;
}

// Autograd knows a block as a whole: inside, libtorch's operators need not look
// for it, which is most of what a small one takes.
at::Tensor forward_inside(Block& block, const at::Tensor& input) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return block.forward(input);
}
at::Tensor backward_inside(
    Block& block,
    const at::Tensor& output_gradient,
    flat::GradientOutputs& gradients) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return block.backward(output_gradient, gradients);
}

struct BlockFunction : public torch::autograd::Function<BlockFunction> {
  static at::Tensor forward(
      AutogradContext* context,
      const std::optional<at::Tensor>& input,
      at::TensorList /*parameters, for their edges in the graph*/,
      const c10::intrusive_ptr<BlockHolder>& holder) {
    context->saved_data["block"] = c10::IValue::make_capsule(holder);
    return forward_inside(*holder->block, input.value_or(at::Tensor()));
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
        backward_inside(*holder.block, output_gradients[0], gradients)};
    holder.block.reset(); // activations are not needed any more
    for (const size_t node : holder.nodes) {
      inputs.push_back(std::move(gradients.results()[node]));
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
    return forward_inside(*block, input);
  }
  const auto optional_input =
      input.defined() ? std::optional<at::Tensor>(input) : std::nullopt;
  std::vector<size_t> nodes = graph_nodes(input, parameters);
  std::vector<at::Tensor> tensors;
  for (const size_t node : nodes) {
    tensors.push_back(parameters.tensors[node]);
  }
  return BlockFunction::apply(
      optional_input,
      at::TensorList(tensors),
      c10::make_intrusive<BlockHolder>(
          std::move(block), &parameters, std::move(nodes)));
}

} // namespace deepspeed::bert
