// Coarse autograd functions: a node for each block of the model, or for several
// that follow each other.
#include "deepspeed/bert/block.h"

#include <span>

namespace deepspeed::bert {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The parameters of a block that autograd must come to after it: a visit costs
// some microseconds, in which the other threads idle.
std::vector<size_t> graph_nodes(const BlockParameters& parameters) {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < parameters.tensors.size(); ++i) {
    const flat::GradientSlot* slot =
        parameters.slots.empty() ? nullptr : parameters.slots[i];
    if (slot == nullptr || slot->observer != nullptr) {
      nodes.push_back(i);
    }
  }
  return nodes;
}

// The blocks of one node, carried through the context, which holds IValues.
struct Chain : torch::CustomClassHolder {
  Chain(std::span<const BlockUse> uses, std::vector<size_t> nodes)
      : blocks(uses.begin(), uses.end()), nodes(std::move(nodes)) {}

  std::vector<BlockUse> blocks;
  std::vector<size_t> nodes; // parameters of the first one, in the graph
};

// Autograd knows a chain as a whole: inside, libtorch's operators need not look
// for it, which is most of what a small one takes.
using BelowAutograd = at::AutoDispatchBelowADInplaceOrView;

at::Tensor forward_through(const BlockUse& use, const at::Tensor& input) {
  const BelowAutograd below_autograd;
  const base::Span span(use.parameters->pass("forward"));
  return use.block->forward(input);
}

struct ChainFunction : public torch::autograd::Function<ChainFunction> {
  static at::Tensor forward(
      AutogradContext* context,
      const std::optional<at::Tensor>& input,
      at::TensorList /*parameters, for their edges in the graph*/,
      const c10::intrusive_ptr<Chain>& chain) {
    context->saved_data["chain"] = c10::IValue::make_capsule(chain);
    at::Tensor x = input.value_or(at::Tensor());
    for (const BlockUse& use : chain->blocks) {
      x = forward_through(use, x);
    }
    return x;
  }

  static variable_list backward(
      AutogradContext* context,
      const variable_list& output_gradients) {
    const auto capsule = context->saved_data["chain"].toCapsule();
    auto& chain = static_cast<Chain&>(*capsule);
    at::Tensor gradient = output_gradients[0];
    // The order of the inputs: input, parameters, chain.
    variable_list inputs(1);
    for (size_t i = chain.blocks.size(); i-- > 0;) {
      BlockUse& use = chain.blocks[i];
      TORCH_CHECK(
          use.block != nullptr, "backward through a block a second time");
      const BelowAutograd below_autograd;
      const base::Span span(use.parameters->pass("backward"));
      flat::GradientOutputs gradients(
          use.parameters->slots, use.parameters->tensors);
      gradient = use.block->backward(gradient, gradients);
      use.block.reset(); // activations are not needed any more
      if (i == 0) {
        for (const size_t node : chain.nodes) {
          inputs.push_back(std::move(gradients.results()[node]));
        }
      }
    }
    inputs[0] = std::move(gradient);
    inputs.emplace_back();
    return inputs;
  }
};

at::Tensor apply_chain(
    const at::Tensor& input,
    std::span<const BlockUse> uses,
    std::vector<size_t> nodes) {
  const auto optional_input =
      input.defined() ? std::optional<at::Tensor>(input) : std::nullopt;
  if (nodes.empty() && !input.defined()) {
    nodes.push_back(0); // a graph needs a parameter at its start
  }
  std::vector<at::Tensor> tensors;
  for (const size_t node : nodes) {
    tensors.push_back(uses.front().parameters->tensors[node]);
  }
  return ChainFunction::apply(
      optional_input,
      at::TensorList(tensors),
      c10::make_intrusive<Chain>(uses, std::move(nodes)));
}

} // namespace

at::Tensor apply_blocks(std::vector<BlockUse> blocks) {
  at::Tensor x;
  if (!at::GradMode::is_enabled()) {
    for (BlockUse& use : blocks) {
      x = forward_through(use, x);
      use.block.reset(); // nobody goes back
    }
    return x;
  }
  const std::span<const BlockUse> all(blocks);
  for (size_t begin = 0; begin < all.size();) {
    std::vector<size_t> nodes = graph_nodes(*all[begin].parameters);
    size_t end = begin + 1;
    while (end < all.size() && graph_nodes(*all[end].parameters).empty()) {
      ++end;
    }
    x = apply_chain(x, all.subspan(begin, end - begin), std::move(nodes));
    begin = end;
  }
  return x;
}

} // namespace deepspeed::bert
