// Coarse autograd functions: a node for each block of the model, or for several
// that follow each other.
#pragma once

#include <memory>
#include <vector>

#include "deepspeed/base/trace.h"
#include "deepspeed/flat/gradient_slot.h"
#include "deepspeed/ops/operations.h"

namespace deepspeed::bert {

// One use of a block in one forward pass: it keeps what its backward needs.
// The arithmetic inside is invisible to autograd.
class Block {
 public:
  virtual ~Block() = default;

  // `input` is undefined for the first block of a model.
  virtual at::Tensor forward(const at::Tensor& input) = 0;
  // Takes the gradient of the output, writes those of the parameters, and
  // returns that of the input (undefined if there was none). Called once.
  virtual at::Tensor backward(
      const at::Tensor& output_gradient,
      flat::GradientOutputs& gradients) = 0;
};

// The parameters of a block and where their gradients go, by position.
struct BlockParameters {
  std::vector<at::Tensor> tensors;
  std::vector<flat::GradientSlot*> slots; // all null until bound
  // What a profile calls its passes: {"", "layer", 3}.
  base::SpanName name;

  // Those of the parameters' device.
  const ops::Operations& operations() const {
    return ops::operations_on(tensors.front().device());
  }
  base::SpanName pass(const char* forward_or_backward) const {
    return {forward_or_backward, name.of, name.index};
  }
};

struct BlockUse {
  std::shared_ptr<Block> block;
  const BlockParameters* parameters = nullptr; // must outlive backward
};

// Runs the blocks one after the other, each with the output of the one before,
// and returns that of the last. While gradients are recorded the graph gets a
// node for all of them; but another one begins with each block that has
// parameters which autograd must come to after it.
at::Tensor apply_blocks(std::vector<BlockUse> blocks);

} // namespace deepspeed::bert
