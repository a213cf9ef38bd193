// Sums gradients over the ranks while backward still runs.
#include "deepspeed/zero/gradient_reducer.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <chrono>
#include <numeric>

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
  // [end - begin], fp32, where backward writes: a view, or only while it lives
  at::Tensor gradients;
  at::Tensor summed; // `gradients`, or a copy in host memory
  at::Tensor wire; // what travels, if that is another tensor
  size_t waiting_for = 0; // parameters without a complete gradient
  std::shared_ptr<comm::Work> work;
};

struct GradientReducer::Hook {
  // Kept alive; libtorch 2.11 and 2.15 differ in the kind of pointer.
  decltype(torch::autograd::impl::grad_accumulator(at::Tensor())) accumulator;
  uintptr_t key = 0;
};

GradientReducer::GradientReducer(
    std::vector<std::unique_ptr<FlatGroup>>& groups,
    comm::ProcessGroup& ranks,
    const Layout& layout,
    const ReducerOptions& options)
    : groups_(groups), ranks_(ranks), layout_(layout), options_(options) {
  // Backward reaches the last group first.
  for (size_t g = groups_.size(); g-- > 0;) {
    std::vector<int64_t> numels;
    std::vector<size_t> early;
    for (const flat::FlatEntry& entry : groups_[g]->entries()) {
      if (entry.slot.rows_come_last && is_overlapped()) {
        early.push_back(numels.size());
      }
      numels.push_back(entry.numel);
    }
    const int64_t most = is_overlapped()
        ? std::min(options_.bucket_size, kOverlappedBucket)
        : options_.bucket_size;
    for (const Bucket& bucket : cut_into_buckets(numels, most, early)) {
      auto state = std::make_unique<State>();
      state->group = groups_[g].get();
      state->bucket = bucket;
      state->number = static_cast<int64_t>(buckets_.size());
      if (layout_.whole_gradients) {
        const int64_t numel = bucket.end - bucket.begin;
        state->gradients =
            state->group->module_gradients().narrow(0, bucket.begin, numel);
        state->summed =
            state->group->gradients().narrow(0, bucket.begin, numel);
      }
      buckets_.push_back(std::move(state));
      for (size_t i = bucket.first_entry; i <= bucket.last_entry; ++i) {
        watch(buckets_.size() - 1, groups_[g]->entries()[i]);
      }
    }
  }
}

GradientReducer::~GradientReducer() {
  for (const Hook& hook : hooks_) {
    hook.accumulator->del_post_hook(hook.key);
  }
  for (const auto& state : buckets_) {
    for (flat::FlatEntry& entry : state->group->entries()) {
      entry.slot.make_room = nullptr;
      entry.slot.on_dense = nullptr;
      entry.slot.is_awaited = false;
      entry.slot.is_handed_over = false;
      entry.slot.take_again = nullptr;
    }
    try {
      if (state->work) {
        state->work->wait();
      }
    } catch (const std::exception&) {
      // Whoever used the group has been told.
    }
  }
}

void GradientReducer::watch(size_t bucket, flat::FlatEntry& entry) {
  if (!layout_.whole_gradients) {
    entry.slot.make_room = [this, bucket] { make_room(*buckets_[bucket]); };
  }
  if (entry.slot.rows_come_last && is_overlapped()) {
    entry.slot.on_dense = [this, bucket, &entry] { on_dense(bucket, entry); };
    rows_.push_back({buckets_[bucket]->group, &entry});
  }
  // A node that runs once in a graph, when every use of the parameter there has
  // contributed: to parameter.grad(), or straight to the slot.
  Hook hook;
  entry.slot.is_awaited = true;
  entry.slot.take_again = [this, &entry] { return take_again(entry); };
  hook.accumulator = torch::autograd::impl::grad_accumulator(entry.parameter);
  using torch::autograd::variable_list;
  hook.key = hook.accumulator->add_post_hook(
      std::make_unique<torch::autograd::utils::LambdaPostHook>(
          [this, bucket, &entry](
              const variable_list& outputs, const variable_list&) {
            on_gradient(bucket, entry);
            return outputs;
          }));
  hooks_.push_back(std::move(hook));
}

bool GradientReducer::is_overlapped() const {
  return options_.overlap && ranks_.size() > 1;
}

void GradientReducer::make_room(State& state) {
  if (state.gradients.defined()) {
    return;
  }
  const Bucket& bucket = state.bucket;
  state.gradients = at::empty(
      {bucket.end - bucket.begin},
      at::TensorOptions(at::kFloat).device(layout_.device));
  for (size_t i = bucket.first_entry; i <= bucket.last_entry; ++i) {
    flat::FlatEntry& entry = state.group->entries()[i];
    entry.slot.grad =
        state.gradients.narrow(0, entry.offset - bucket.begin, entry.numel)
            .view(entry.parameter.sizes());
  }
}

void GradientReducer::begin_step() {
  for (const auto& group : groups_) {
    for (flat::FlatEntry& entry : group->entries()) {
      entry.slot.fresh = true;
      entry.slot.late.reset();
      entry.slot.is_handed_over = false;
      entry.parameter.mutable_grad().reset();
    }
  }
  again_.clear();
  written_outside_.clear();
  unused_.clear();
  reduce_seconds_ = 0;
  exposed_seconds_ = 0;
}

void GradientReducer::begin_backward(bool last) {
  last_ = last;
  in_backward_ = true;
  next_ = 0;
  finished_ = 0;
  for (const auto& state : buckets_) {
    const auto& entries = state->group->entries();
    state->waiting_for = std::count_if(
        entries.begin() + state->bucket.first_entry,
        entries.begin() + state->bucket.last_entry + 1,
        [](const flat::FlatEntry& entry) { return !entry.slot.is_unused; });
  }
}

void GradientReducer::on_gradient(size_t bucket, flat::FlatEntry& entry) {
  if (!in_backward_) {
    // Somebody else's backward pass: parameter.grad() is his. A block that
    // writes straight to its slot has written there, though.
    if (!entry.parameter.grad().defined()) {
      written_outside_ = entry.name;
    }
    return;
  }
  const at::NoGradGuard no_grad;
  entry.slot.collect(entry.parameter);
  if (!last_ || entry.slot.is_handed_over || entry.slot.is_unused) {
    return; // of those nobody waits for the last
  }
  entry.slot.is_handed_over = true;
  --buckets_[bucket]->waiting_for;
  if (options_.overlap) {
    launch_ready();
  }
}

flat::GradientSlot::Target GradientReducer::take_again(flat::FlatEntry& entry) {
  const auto [place, fresh] = again_.try_emplace(&entry);
  if (fresh) {
    place->second = at::empty(
        entry.parameter.sizes(), entry.parameter.options().dtype(at::kFloat));
    std::erase(unused_, entry.name);
  }
  return {place->second, !fresh};
}

// The dense gradient goes ahead; rows that follow are summed in wait().
void GradientReducer::on_dense(size_t bucket, flat::FlatEntry& entry) {
  if (!in_backward_ || !last_ || entry.slot.is_handed_over) {
    return;
  }
  const at::NoGradGuard no_grad;
  entry.slot.late.emplace();
  entry.slot.is_handed_over = true;
  --buckets_[bucket]->waiting_for;
  launch_ready();
}

void GradientReducer::launch_ready() {
  while (next_ < buckets_.size() && buckets_[next_]->waiting_for == 0) {
    launch(*buckets_[next_++]);
  }
  if (!layout_.whole_gradients) {
    take_finished(false);
  }
}

void GradientReducer::launch(State& state) {
  const Bucket& bucket = state.bucket;
  for (size_t i = bucket.first_entry; i <= bucket.last_entry; ++i) {
    flat::FlatEntry& entry = state.group->entries()[i];
    if (entry.slot.fresh) {
      if (!again_.contains(&entry)) {
        unused_.push_back(entry.name);
      }
      entry.slot.is_handed_over = false; // nothing came
      entry.slot.take().grad.zero_();
    }
    entry.slot.is_handed_over = true;
  }
  const bool in_host_memory = !layout_.exchange_on_device;
  if (!layout_.whole_gradients) { // .cpu(): itself, if it is there already
    state.summed = in_host_memory ? state.gradients.cpu() : state.gradients;
  } else if (in_host_memory && !layout_.device.is_cpu()) {
    state.summed.copy_(state.gradients);
  }
  at::Tensor data = state.summed;
  if (options_.predivide != 1) {
    data.mul_(static_cast<float>(1 / options_.predivide));
  }
  if (options_.wire_dtype != at::kFloat) {
    state.wire = data.to(options_.wire_dtype);
    data = state.wire;
  }
  const base::SpanName name{"reduce", "bucket", state.number};
  if (layout_.stage == 0 || !options_.reduce_scatter) {
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
  again_.clear();
  written_outside_.clear();
  for (const auto& state : buckets_) {
    state->work.reset();
    if (!layout_.whole_gradients) {
      state->gradients.reset();
      state->summed.reset();
    }
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
  if (layout_.whole_gradients && !layout_.exchange_on_device) {
    return; // shard_gradient() is a part of gradients()
  }
  const Bucket& bucket = state.bucket;
  const checkpoint::Overlap own = checkpoint::overlap_of(
      state.group->shard(), bucket.begin, bucket.end - bucket.begin);
  if (own.numel > 0) {
    state.group->shard_gradient()
        .narrow(0, own.in_shard, own.numel)
        .copy_(state.summed.narrow(0, own.in_parameter, own.numel));
  }
  if (layout_.whole_gradients) {
    return;
  }
  state.gradients.reset();
  state.summed.reset();
  for (size_t i = bucket.first_entry; i <= bucket.last_entry; ++i) {
    state.group->entries()[i].slot.grad.reset();
  }
}

// The sum over the ranks, in their order, of the rows that came after the dense
// gradient. Every rank takes part, also one whose rows went with the dense one.
void GradientReducer::add_rows(FlatGroup& group, flat::FlatEntry& entry) {
  const flat::RowGradients own = entry.slot.late.value_or(flat::RowGradients());
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
  float* const sums = group.shard_gradient().data_ptr<float>();
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
  std::vector<std::pair<FlatGroup*, flat::FlatEntry*>> entries;
  for (const auto& group : groups_) {
    for (flat::FlatEntry& entry : group->entries()) {
      entries.push_back({group.get(), &entry});
    }
  }
  at::Tensor any = at::zeros({static_cast<int64_t>(entries.size())}, at::kLong);
  int64_t* const flags = any.data_ptr<int64_t>();
  for (size_t i = 0; i < entries.size(); ++i) {
    flags[i] = again_.contains(entries[i].second) ? 1 : 0;
  }
  ranks_.all_reduce(any, comm::ReduceOp::max)->wait();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (flags[i] == 0) {
      continue;
    }
    const auto& [group, entry] = entries[i];
    const auto own = again_.find(entry);
    at::Tensor data = own == again_.end()
        ? at::zeros({entry->numel}, at::kFloat)
        : own->second.flatten().cpu();
    if (options_.predivide != 1) {
      data.mul_(static_cast<float>(1 / options_.predivide));
    }
    data = data.to(options_.wire_dtype);
    ranks_.all_reduce(data, comm::ReduceOp::sum)->wait();
    const checkpoint::Overlap part =
        checkpoint::overlap_of(group->shard(), entry->offset, entry->numel);
    group->shard_gradient()
        .narrow(0, part.in_shard, part.numel)
        .add_(data.narrow(0, part.in_parameter, part.numel).to(at::kFloat));
  }
  again_.clear();
}

void GradientReducer::wait() {
  const at::NoGradGuard no_grad;
  const base::Span span({"wait for reductions"});
  const auto start = std::chrono::steady_clock::now();
  take_finished(true);
  if (last_) {
    for (const auto& [group, entry] : rows_) {
      add_rows(*group, *entry);
    }
  }
  exposed_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
}

} // namespace deepspeed::zero
