// Sums gradients over the ranks while backward still runs.
#include "deepspeed/zero/gradient_reducer.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <span>

#include "deepspeed/base/trace.h"

namespace deepspeed::zero {
namespace {

// Elements: a layer or two. What is still to be summed when backward ends is
// the last bucket; the bits of a sum do not depend on its bucket.
constexpr int64_t kOverlappedBucket = 1 << 20;

} // namespace

struct GradientReducer::State {
  FlatGroup* group = nullptr;
  Bucket bucket;
  int64_t number = 0; // in the order of reduction
  // [end - begin], fp32, where backward writes; undefined: no room yet
  at::Tensor gradients;
  at::Tensor summed; // where the ranks sum: `gradients`, or a copy
  at::Tensor wire; // what travels, if that is another tensor
  size_t waiting_for = 0; // parameters without a complete gradient
  std::shared_ptr<comm::Work> work;
  std::vector<std::unique_ptr<Watched>> parameters; // in flat order
};

// Hangs on a parameter as long as the reducer lives.
class GradientReducer::Watched : public flat::GradientObserver {
 public:
  Watched(GradientReducer& reducer, State& bucket, flat::FlatEntry& entry)
      : reducer_(reducer), bucket_(bucket), entry_(entry) {
    entry_.slot.observer = this;
    // A node that runs once in a graph, when every use of the parameter there
    // has contributed: to parameter.grad(), or straight to the slot.
    accumulator_ = torch::autograd::impl::grad_accumulator(entry.parameter);
    using torch::autograd::variable_list;
    key_ = accumulator_->add_post_hook(
        std::make_unique<torch::autograd::utils::LambdaPostHook>(
            [this](const variable_list& outputs, const variable_list&) {
              on_gradient();
              return outputs;
            }));
  }
  ~Watched() override {
    accumulator_->del_post_hook(key_);
    entry_.slot.observer = nullptr;
    entry_.slot.begin_step();
  }

  void make_room() override {
    reducer_.make_room(bucket_);
  }
  void on_dense() override;
  flat::GradientTarget take_again() override;
  flat::RowGradients* late_rows() override {
    return rows_ && !rows_->values.defined() ? &*rows_ : nullptr;
  }

  // Whether rows that come last are summed by themselves.
  bool rows_go_apart() const {
    return entry_.slot.traits.rows_come_last && reducer_.is_overlapped();
  }
  FlatGroup& group() const {
    return *bucket_.group;
  }
  flat::FlatEntry& entry() const {
    return entry_;
  }
  // Rows that came after the dense gradient; nothing if that did not go ahead.
  std::optional<flat::RowGradients>& rows() {
    return rows_;
  }
  // What came when the gradient had been handed over: fp32, the parameter's
  // shape, where the module computes; undefined: nothing.
  at::Tensor& again() {
    return again_;
  }

 private:
  void on_gradient();
  void hand_over();

  GradientReducer& reducer_;
  State& bucket_;
  flat::FlatEntry& entry_;
  // Kept alive; libtorch 2.11 and 2.15 differ in the kind of pointer.
  decltype(torch::autograd::impl::grad_accumulator(at::Tensor())) accumulator_;
  uintptr_t key_ = 0;
  std::optional<flat::RowGradients> rows_;
  at::Tensor again_;
};

void GradientReducer::Watched::on_gradient() {
  if (!reducer_.in_backward_) {
    // Somebody else's backward pass: parameter.grad() is his. A block that
    // writes straight to its slot has written there, though.
    if (!entry_.parameter.grad().defined()) {
      reducer_.written_outside_ = entry_.name;
    }
    return;
  }
  const at::NoGradGuard no_grad;
  entry_.slot.collect(entry_.parameter);
  if (!reducer_.last_ || entry_.slot.is_handed_over() ||
      entry_.slot.traits.is_unused) {
    return; // of those nobody waits for the last
  }
  hand_over();
}

// The dense gradient goes ahead; rows that follow are summed in wait().
void GradientReducer::Watched::on_dense() {
  if (!rows_go_apart() || !reducer_.in_backward_ || !reducer_.last_ ||
      entry_.slot.is_handed_over()) {
    return;
  }
  const at::NoGradGuard no_grad;
  rows_.emplace();
  hand_over();
}

void GradientReducer::Watched::hand_over() {
  entry_.slot.hand_over();
  --bucket_.waiting_for;
  if (reducer_.options_.overlap) {
    reducer_.launch_ready();
  }
}

flat::GradientTarget GradientReducer::Watched::take_again() {
  const bool fresh = !again_.defined();
  if (fresh) {
    again_ = at::empty(
        entry_.parameter.sizes(), entry_.parameter.options().dtype(at::kFloat));
    std::erase(reducer_.unused_, entry_.name);
  }
  return {again_, !fresh};
}

GradientReducer::GradientReducer(
    std::vector<std::unique_ptr<FlatGroup>>& groups,
    comm::ProcessGroup& ranks,
    const ReducerOptions& options)
    : groups_(groups), ranks_(ranks), options_(options) {
  // Backward reaches the last group first.
  for (size_t g = groups_.size(); g-- > 0;) {
    add_buckets(*groups_[g]);
  }
}

void GradientReducer::add_buckets(FlatGroup& group) {
  std::vector<int64_t> numels;
  std::vector<size_t> early;
  for (const flat::FlatEntry& entry : group.entries()) {
    if (entry.slot.traits.rows_come_last && is_overlapped()) {
      early.push_back(numels.size());
    }
    numels.push_back(entry.numel);
  }
  const int64_t most = is_overlapped()
      ? std::min(options_.bucket_size, kOverlappedBucket)
      : options_.bucket_size;
  for (const Bucket& bucket : cut_into_buckets(numels, most, early)) {
    auto state = std::make_unique<State>();
    state->group = &group;
    state->bucket = bucket;
    state->number = static_cast<int64_t>(buckets_.size());
    if (!group.gradients().is_temporary()) {
      state->gradients = group.gradients().open(bucket.begin, bucket.end);
    }
    for (size_t i = bucket.first_entry; i <= bucket.last_entry; ++i) {
      state->parameters.push_back(
          std::make_unique<Watched>(*this, *state, group.entries()[i]));
    }
    buckets_.push_back(std::move(state));
  }
}

GradientReducer::~GradientReducer() {
  for (const auto& state : buckets_) {
    state->parameters.clear();
    try {
      if (state->work) {
        state->work->wait();
      }
    } catch (const std::exception&) {
      // Whoever used the group has been told.
    }
  }
}

bool GradientReducer::is_overlapped() const {
  return options_.overlap && ranks_.size() > 1;
}

void GradientReducer::make_room(State& state) {
  if (state.gradients.defined()) {
    return;
  }
  const Bucket& bucket = state.bucket;
  state.gradients = state.group->gradients().open(bucket.begin, bucket.end);
  for (const auto& parameter : state.parameters) {
    flat::FlatEntry& entry = parameter->entry();
    entry.slot.set_place(
        state.gradients.narrow(0, entry.offset - bucket.begin, entry.numel)
            .view(entry.parameter.sizes()));
  }
}

void GradientReducer::begin_step() {
  for (const auto& group : groups_) {
    group->order().forget_gradients();
  }
  for_each_watched([](Watched& parameter) {
    parameter.rows().reset();
    parameter.again().reset();
  });
  written_outside_.clear();
  unused_.clear();
  reduce_seconds_ = 0;
  exposed_seconds_ = 0;
}

template <typename Function>
void GradientReducer::for_each_watched(const Function& function) const {
  for (const auto& state : buckets_) {
    for (const auto& parameter : state->parameters) {
      function(*parameter);
    }
  }
}

bool GradientReducer::has_more() const {
  bool any = false;
  for_each_watched(
      [&](Watched& parameter) { any = any || parameter.again().defined(); });
  return any;
}

void GradientReducer::begin_backward(bool last) {
  last_ = last;
  in_backward_ = true;
  next_ = 0;
  finished_ = 0;
  for (const auto& state : buckets_) {
    state->waiting_for = std::count_if(
        state->parameters.begin(),
        state->parameters.end(),
        [](const auto& parameter) {
          return !parameter->entry().slot.traits.is_unused;
        });
  }
}

void GradientReducer::launch_ready() {
  while (next_ < buckets_.size() && buckets_[next_]->waiting_for == 0) {
    launch(*buckets_[next_++]);
  }
  take_finished(false);
}

void GradientReducer::launch(State& state) {
  const Bucket& bucket = state.bucket;
  for (const auto& parameter : state.parameters) {
    flat::FlatEntry& entry = parameter->entry();
    if (entry.slot.is_fresh()) {
      if (!parameter->again().defined()) {
        unused_.push_back(entry.name);
      }
      entry.slot.write_zeros();
    }
    entry.slot.hand_over();
  }
  state.summed = state.group->gradients().to_exchange(
      bucket.begin, bucket.end, state.gradients);
  at::Tensor data = state.summed;
  if (options_.predivide != 1) {
    data.mul_(static_cast<float>(1 / options_.predivide));
  }
  if (options_.wire_dtype != at::kFloat) {
    state.wire = data.to(options_.wire_dtype);
    data = state.wire;
  }
  const base::SpanName name{"reduce", "bucket", state.number};
  if (!state.group->is_sharded() || !options_.reduce_scatter) {
    state.work = ranks_.all_reduce(data, comm::ReduceOp::sum, name);
  } else {
    const std::vector<int64_t> bounds =
        bounds_inside(state.group->bounds(), bucket.begin, bucket.end);
    state.work = ranks_.reduce_scatter(data, bounds, name);
  }
}

void GradientReducer::end_backward() {
  in_backward_ = false;
  if (last_) {
    launch_rest();
  }
}

void GradientReducer::reduce_now() {
  begin_backward(true);
  end_backward();
}

void GradientReducer::abandon_step() noexcept {
  in_backward_ = false;
  try {
    take_finished(true);
  } catch (const std::exception&) {
    // The next collective throws it again.
  }
  for_each_watched([](Watched& parameter) { parameter.again().reset(); });
  written_outside_.clear();
  for (const auto& state : buckets_) {
    state->work.reset();
    let_go(*state);
  }
}

void GradientReducer::launch_rest() {
  const at::NoGradGuard no_grad;
  for (const auto& state : buckets_) {
    state->waiting_for = 0;
  }
  launch_ready();
}

void GradientReducer::take_finished(bool all) {
  while (finished_ < next_ && (all || buckets_[finished_]->work->is_done())) {
    finish(*buckets_[finished_++]);
  }
}

void GradientReducer::finish(State& state) {
  state.work->wait();
  reduce_seconds_ += state.work->seconds();
  state.work.reset();
  if (state.wire.defined()) {
    state.summed.copy_(state.wire);
    state.wire.reset();
  }
  state.group->gradients().keep(
      state.bucket.begin, state.bucket.end, state.summed);
  let_go(state);
}

void GradientReducer::let_go(State& state) {
  state.summed.reset();
  if (state.group->gradients().is_temporary()) {
    state.gradients.reset();
    for (const auto& parameter : state.parameters) {
      parameter->entry().slot.set_place({});
    }
  }
}

// The sum over the ranks, in their order, of the rows that came after the dense
// gradient. Every rank takes part, also one whose rows went with the dense one.
void GradientReducer::add_rows(Watched& parameter) {
  const flat::FlatEntry& entry = parameter.entry();
  const FlatGroup& group = parameter.group();
  const flat::RowGradients own =
      parameter.rows().value_or(flat::RowGradients());
  const int64_t columns = entry.parameter.size(-1);
  at::Tensor values =
      own.values.defined() ? own.values : at::empty({0, columns});
  if (options_.predivide != 1) {
    values = values * static_cast<float>(1 / options_.predivide);
  }
  const auto count = static_cast<int64_t>(own.rows.size());
  std::vector<int64_t> each(ranks_.size() + 1);
  std::iota(each.begin(), each.end(), 0);
  at::Tensor counts = at::full({ranks_.size()}, count, at::kLong);
  ranks_.all_gather(counts, each)->wait();
  std::vector<int64_t> bounds{0};
  std::vector<int64_t> value_bounds{0};
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    bounds.push_back(bounds.back() + counts[rank].item<int64_t>());
    value_bounds.push_back(bounds.back() * columns);
  }
  at::Tensor rows = at::empty({bounds.back()}, at::kLong);
  at::Tensor all = at::empty({value_bounds.back()}, options_.wire_dtype);
  const int64_t begin = bounds[ranks_.rank()];
  std::copy(own.rows.begin(), own.rows.end(), rows.data_ptr<int64_t>() + begin);
  all.narrow(0, begin * columns, count * columns).copy_(values.flatten());
  ranks_.all_gather(rows, bounds)->wait();
  ranks_.all_gather(all, value_bounds)->wait();
  all = all.to(at::kFloat);
  float* const sums = group.gradients().shard().data_ptr<float>();
  for (int64_t i = 0; i < bounds.back(); ++i) {
    const checkpoint::Overlap part = checkpoint::overlap_of(
        group.shard(),
        entry.offset + rows.const_data_ptr<int64_t>()[i] * columns,
        columns);
    const float* value =
        all.const_data_ptr<float>() + i * columns + part.in_parameter;
    for (int64_t j = 0; j < part.numel; ++j) {
      sums[part.in_shard + j] += value[j];
    }
  }
}

void GradientReducer::add_again() {
  const at::NoGradGuard no_grad;
  const base::Span span({"sum gradients that came again"});
  std::vector<Watched*> parameters;
  for_each_watched(
      [&](Watched& parameter) { parameters.push_back(&parameter); });
  at::Tensor any =
      at::zeros({static_cast<int64_t>(parameters.size())}, at::kLong);
  int64_t* const flags = any.data_ptr<int64_t>();
  for (size_t i = 0; i < parameters.size(); ++i) {
    flags[i] = parameters[i]->again().defined() ? 1 : 0;
  }
  ranks_.all_reduce(any, comm::ReduceOp::max)->wait();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (flags[i] != 0) {
      add_again(*parameters[i]);
    }
  }
}

void GradientReducer::add_again(Watched& parameter) {
  const flat::FlatEntry& entry = parameter.entry();
  at::Tensor data = parameter.again().defined()
      ? parameter.again().flatten().cpu()
      : at::zeros({entry.numel}, at::kFloat);
  parameter.again().reset();
  if (options_.predivide != 1) {
    data.mul_(static_cast<float>(1 / options_.predivide));
  }
  data = data.to(options_.wire_dtype);
  ranks_.all_reduce(data, comm::ReduceOp::sum)->wait();
  const FlatGroup& group = parameter.group();
  const checkpoint::Overlap part =
      checkpoint::overlap_of(group.shard(), entry.offset, entry.numel);
  group.gradients()
      .shard()
      .narrow(0, part.in_shard, part.numel)
      .add_(data.narrow(0, part.in_parameter, part.numel).to(at::kFloat));
}

void GradientReducer::wait() {
  const at::NoGradGuard no_grad;
  const base::Span span({"wait for reductions"});
  const auto start = std::chrono::steady_clock::now();
  take_finished(true);
  if (last_) {
    for_each_watched([this](Watched& parameter) {
      if (parameter.rows_go_apart()) {
        add_rows(parameter);
      }
    });
  }
  exposed_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
}

} // namespace deepspeed::zero
