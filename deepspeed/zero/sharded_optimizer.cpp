// Updates the shard of each param group that this rank owns, and gathers the
// weights again.
#include "deepspeed/zero/sharded_optimizer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "deepspeed/base/trace.h"
#include "deepspeed/comm/gather.h"
#include "deepspeed/kernels/adam.h"
#include "deepspeed/optim/sum_of_squares.h"
#include "deepspeed/zero/bucket.h"

namespace deepspeed::zero {
namespace {

// This rank's share of the reduced gradients.
at::Tensor counted_gradient(const FlatGroup& group) {
  const checkpoint::Shard& counted = group.counted();
  return group.gradients().shard().narrow(
      0, counted.offset - group.shard().offset, counted.used);
}

} // namespace

std::vector<optim::ShardPiece> pieces_of(
    const FlatGroup& group,
    const checkpoint::Shard& part) {
  std::vector<optim::ShardPiece> pieces;
  const auto& entries = group.entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const checkpoint::Overlap overlap =
        checkpoint::overlap_of(part, entries[i].offset, entries[i].numel);
    if (overlap.numel > 0) {
      const int64_t begin =
          part.offset + overlap.in_shard - group.shard().offset;
      pieces.push_back({static_cast<int64_t>(i), begin, begin + overlap.numel});
    }
  }
  return pieces;
}

ShardedOptimizer::ShardedOptimizer(
    std::vector<std::unique_ptr<FlatGroup>>& groups,
    std::vector<std::unique_ptr<optim::ShardOptimizer>> optimizers,
    comm::ProcessGroup& ranks,
    int64_t gather_size)
    : groups_(groups),
      optimizers_(std::move(optimizers)),
      ranks_(ranks),
      gather_size_(gather_size) {}

ShardedOptimizer::Norm ShardedOptimizer::gradient_norm(int64_t note) {
  const base::Span span({"gradient norm"});
  double own = 0;
  for (const auto& group : groups_) {
    const at::Tensor gradient = counted_gradient(*group);
    own += optim::sum_of_squares(
        gradient.const_data_ptr<float>(), gradient.numel());
  }
  struct Share {
    double squares = 0;
    int64_t note = 0;
  };
  Norm norm;
  double total = 0;
  for (const Share& share : comm::gather(ranks_, Share{own, note})) {
    total += share.squares;
    norm.notes.push_back(share.note);
  }
  norm.value = std::sqrt(total);
  return norm;
}

std::optional<std::string> ShardedOptimizer::first_not_finite() {
  std::vector<std::string> names;
  std::optional<size_t> own; // the number in `names`
  for (const auto& group : groups_) {
    const float* gradient = group->gradients().shard().const_data_ptr<float>();
    for (const optim::ShardPiece& piece : pieces_of(*group, group->counted())) {
      if (!own &&
          !kernels::all_finite(
              gradient + piece.begin, piece.end - piece.begin)) {
        own = names.size() + piece.parameter;
      }
    }
    for (const flat::FlatEntry& entry : group->entries()) {
      names.push_back(entry.name);
    }
  }
  size_t first = names.size();
  for (const size_t found : comm::gather(ranks_, own.value_or(first))) {
    first = std::min(first, found);
  }
  if (first == names.size()) {
    return std::nullopt;
  }
  return names[first];
}

void ShardedOptimizer::step(std::span<const optim::ShardStep> steps) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const base::Span span({"update"});
    optimizers_[i]->step(groups_[i]->tensors(), steps[i]);
  }
  gather_weights();
}

void ShardedOptimizer::gather_weights() {
  const at::NoGradGuard no_grad;
  const base::Span span({"gather"});
  for (const auto& group : groups_) {
    group->weights().push_own();
  }
  gather_shards();
  for (const auto& group : groups_) {
    group->weights().push_all();
  }
}

void ShardedOptimizer::gather_shards() {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<comm::Work>> works;
  for (const auto& group : groups_) {
    const int64_t numel = group->is_sharded() ? group->padded() : 0;
    for (int64_t begin = 0; begin < numel; begin += gather_size_) {
      const int64_t end = std::min(begin + gather_size_, numel);
      works.push_back(ranks_.all_gather(
          group->weights().exchanged().narrow(0, begin, end - begin),
          bounds_inside(group->bounds(), begin, end),
          {"gather", "weights"}));
    }
  }
  for (const auto& work : works) {
    work->wait();
  }
  gather_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
}

} // namespace deepspeed::zero
