// Updates the shard of each param group that this rank owns, and gathers the
// weights again.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "deepspeed/optim/shard_optimizer.h"
#include "deepspeed/zero/flat_group.h"

namespace deepspeed::zero {

// A shard as pieces of parameters.
std::vector<optim::ShardPiece> pieces_of(
    const FlatGroup& group,
    const checkpoint::Shard& part);

// All ranks make the same calls in the same order. Not thread-safe.
class ShardedOptimizer {
 public:
  // One optimizer for each group. The groups must outlive the object. Weights
  // are gathered `gather_size` elements at a time.
  ShardedOptimizer(
      std::vector<std::unique_ptr<FlatGroup>>& groups,
      std::vector<std::unique_ptr<optim::ShardOptimizer>> optimizers,
      comm::ProcessGroup& ranks,
      int64_t gather_size);

  struct Norm {
    double value = 0;
    std::vector<int64_t> notes; // of the ranks
  };
  // The L2 norm of all reduced gradients, over all ranks and groups. Not finite
  // if one gradient is not. The same bits in every stage. `note`, less than
  // 2^53, travels with it.
  Norm gradient_norm(int64_t note = 0);

  // The first parameter, in flat order, whose gradient is not finite; nothing
  // if all are.
  std::optional<std::string> first_not_finite();

  // One update of each group, and the weights of all ranks.
  void step(std::span<const optim::ShardStep> steps);

  // Brings the compute weights of the other ranks here, after a load.
  void gather_weights();

  std::vector<std::unique_ptr<optim::ShardOptimizer>>& optimizers() {
    return optimizers_;
  }
  const std::vector<std::unique_ptr<optim::ShardOptimizer>>& optimizers()
      const {
    return optimizers_;
  }
  // Of the last step.
  double gather_seconds() const {
    return gather_seconds_;
  }

 private:
  void gather_shards();

  std::vector<std::unique_ptr<FlatGroup>>& groups_;
  std::vector<std::unique_ptr<optim::ShardOptimizer>> optimizers_;
  comm::ProcessGroup& ranks_;
  int64_t gather_size_;
  double gather_seconds_ = 0;
};

} // namespace deepspeed::zero
