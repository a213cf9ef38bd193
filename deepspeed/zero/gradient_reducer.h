// Sums gradients over the ranks while backward still runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deepspeed/zero/bucket.h"
#include "deepspeed/zero/flat_group.h"

namespace deepspeed::zero {

struct ReducerOptions {
  int64_t bucket_size = 500'000'000; // elements at most
  // Buckets are kept small, and go while backward runs; false: after it.
  bool overlap = true;
  bool reduce_scatter = true; // false: all-reduce in every stage
  // Contributions are rounded to this dtype before they are summed.
  at::ScalarType wire_dtype = at::kFloat;
  double predivide = 1; // gradients are divided by this before the sum
};

// Watches the parameters of some groups. A parameter that autograd has come to
// counts for its bucket; a bucket that is complete is reduced, in the fixed
// order of the buckets, so that all ranks reduce the same one at a time.
//
// Mostly autograd comes to a parameter once, after its last use. A backward
// pass inside of the backward pass, as recomputation has it, comes to those
// that it uses for itself, and nobody can know what follows. So what a
// parameter gets after the first time in the last micro batch is kept aside,
// and summed over the ranks by add_again(): in whatever stage, with whatever
// buckets, the same two sums.
//
// For each step: begin_step(); for each micro batch begin_backward(), the
// backward pass, end_backward(); at last wait(), and add_again() if any rank
// has_more(). Gradients of micro batches are added up on each rank first and
// summed over the ranks once, in the last one.
// Whatever the stage and the buckets, an element's sum is the same bits.
// Hooks run on the thread of the backward pass. Not thread-safe.
class GradientReducer {
 public:
  // The groups must outlive the reducer.
  GradientReducer(
      std::vector<std::unique_ptr<FlatGroup>>& groups,
      comm::ProcessGroup& ranks,
      const ReducerOptions& options);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Forgets all gradients.
  void begin_step();
  // `last`: this backward pass is the last one of the step.
  void begin_backward(bool last);
  // Parameters that got no gradient in the whole step get zeros now.
  void end_backward();
  // In place of a last backward pass: sums what the passes so far have left.
  void reduce_now();
  // After a backward pass that threw, or in place of an update: waits for what
  // is under way. begin_step() comes next.
  void abandon_step() noexcept;
  // Returns when the shard of every group's gradients holds the sum, but for
  // what add_again() adds.
  void wait();
  // Whether this rank has gradients that came after those that wait() sums.
  bool has_more() const;
  // Sums them. By all ranks, when one has_more().
  void add_again();

  // Whether a backward pass is under way.
  bool in_backward() const {
    return in_backward_;
  }
  // A parameter whose slot was written while none was; or "".
  const std::string& written_outside() const {
    return written_outside_;
  }
  // Names of the parameters that had no gradient in this step on this rank.
  const std::vector<std::string>& unused() const {
    return unused_;
  }
  // Of the last step: seconds that collectives took, and that wait() waited.
  double reduce_seconds() const {
    return reduce_seconds_;
  }
  double exposed_seconds() const {
    return exposed_seconds_;
  }

 private:
  struct State; // of one bucket
  class Watched; // one parameter

  // Whether sums are made while backward runs.
  bool is_overlapped() const;
  void add_buckets(FlatGroup& group);
  template <typename Function>
  void for_each_watched(const Function& function) const;
  void make_room(State& state);
  void launch_ready();
  void launch_rest();
  void launch(State& state);
  // Buckets whose reduction is done; `all`: waits for the rest too.
  void take_finished(bool all);
  void finish(State& state);
  void let_go(State& state);
  void add_rows(Watched& parameter);
  void add_again(Watched& parameter);

  std::vector<std::unique_ptr<FlatGroup>>& groups_;
  comm::ProcessGroup& ranks_;
  ReducerOptions options_;
  std::vector<std::unique_ptr<State>> buckets_;
  std::vector<std::string> unused_;
  std::string written_outside_;
  size_t next_ = 0; // bucket to launch
  size_t finished_ = 0; // buckets before this one are done
  bool in_backward_ = false;
  bool last_ = false;
  double reduce_seconds_ = 0;
  double exposed_seconds_ = 0;
};

} // namespace deepspeed::zero
