// What a program may have done to the parameters behind the engine's back.
#include <algorithm>
#include <span>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/log.h"
#include "deepspeed/engine/state.h"
#include "deepspeed/flat/aliases.h"

namespace deepspeed {
namespace {

[[noreturn]] void refuse_gradient(const std::string& name) {
  throw std::logic_error(
      "parameter " + name +
      " has a gradient of a backward pass that is not the engine's, which "
      "would be lost or mixed into a step: use engine.backward(loss + other), "
      "or take it and call module.zero_grad() before the engine's next call");
}

// What every rank tells the others of a step.
constexpr int64_t kHasMore = 1; // gradients that came again
constexpr int64_t kNoGradient = 2;
constexpr int64_t kChanged = 4; // times EngineState::changes

void check_notes(const std::vector<int64_t>& notes, size_t parameters) {
  const auto all_without = [](int64_t note) {
    return (note & kNoGradient) != 0;
  };
  if (std::all_of(notes.begin(), notes.end(), all_without)) {
    throw std::logic_error(
        "none of the " + std::to_string(parameters) +
        " parameters got a gradient: the loss does not depend on them");
  }
  for (size_t rank = 1; rank < notes.size(); ++rank) {
    if (notes[rank] / kChanged != notes[0] / kChanged) {
      throw std::logic_error(
          "weights were changed in place, but not alike on all ranks: other "
          "ones, or to other values, on rank " +
          std::to_string(rank) + " than on rank 0");
    }
  }
}

// What is switched on or off for good after initialize(): nothing would train
// the one, and the other would still move.
void check_freezing(EngineState& state) {
  for (const flat::NamedParameter& parameter : state.frozen) {
    if (parameter.tensor.requires_grad()) {
      throw std::logic_error(
          "parameter " + parameter.name +
          " requires a gradient, but did not in initialize(), so it is not "
          "trained: unfreeze it before, or call initialize() again");
    }
  }
  std::vector<std::string> names;
  for (const auto& group : state.groups) {
    for (const flat::FlatEntry& entry : group->entries()) {
      if (!entry.parameter.requires_grad() && !state.checks.freezing_named) {
        names.push_back(entry.name);
      }
    }
  }
  if (names.empty()) {
    return;
  }
  state.checks.freezing_named = true;
  if (state.ranks->rank() == 0) {
    base::log_warning(
        "parameters that were frozen after initialize() get zeros for "
        "gradients, momentum and weight decay still move them: " +
        flat::shortened(names));
  }
}

// 48 bits of the changes so far, and of these: their names and new values.
int64_t hash_of_changes(
    int64_t before,
    const std::vector<const flat::FlatEntry*>& changed) {
  base::ContentHash hash;
  hash.update(std::as_bytes(std::span(&before, 1)));
  for (const flat::FlatEntry* entry : changed) {
    hash.update(std::as_bytes(std::span(entry->name)));
    const at::Tensor values = entry->parameter.detach().cpu();
    hash.update(
        {static_cast<const std::byte*>(values.const_data_ptr()),
         values.nbytes()});
  }
  return std::stoll(hash.hex().substr(0, 12), nullptr, 16);
}

} // namespace

std::vector<std::string> registered_late(const EngineState& state) {
  std::vector<std::string> late;
  if (!state.options.param_groups.empty()) {
    return late; // what is in no group is the program's
  }
  std::unordered_set<const void*> known;
  for (const flat::NamedParameter& parameter : state.rest) {
    known.insert(parameter.tensor.unsafeGetTensorImpl());
  }
  for (const auto& group : state.groups) {
    for (const flat::FlatEntry& entry : group->entries()) {
      known.insert(entry.parameter.unsafeGetTensorImpl());
    }
  }
  for (const auto& item : state.module->named_parameters()) {
    if (item.value().requires_grad() &&
        !known.contains(item.value().unsafeGetTensorImpl())) {
      late.push_back(item.key());
    }
  }
  return late;
}

void check_registered(EngineState& state) {
  if (std::exchange(state.checks.registered_checked, true)) {
    return;
  }
  const std::vector<std::string> late = registered_late(state);
  if (!late.empty()) {
    state.forget_gradients();
    throw std::logic_error(
        "parameters were registered after initialize() and are not trained: " +
        flat::shortened(late) + ". Register them before");
  }
}

void check_parameters(EngineState& state) {
  check_freezing(state);
  std::vector<const flat::FlatEntry*> changed;
  for (const auto& group : state.groups) {
    for (const flat::FlatEntry* entry : group->take_changes()) {
      changed.push_back(entry);
    }
    for (const flat::FlatEntry& entry : group->entries()) {
      if (entry.parameter.grad().defined()) {
        refuse_gradient(entry.name);
      }
    }
  }
  const std::string written = state.reducer->written_outside();
  if (!written.empty()) {
    state.forget_gradients();
    throw std::logic_error(
        "parameter " + written +
        " got a gradient by a backward pass that is not the engine's: the "
        "step begins anew");
  }
  if (changed.empty()) {
    return;
  }
  if (state.ranks->size() > 1) {
    state.checks.changes = hash_of_changes(state.checks.changes, changed);
  }
  if (!std::exchange(state.checks.changes_named, true) &&
      state.ranks->rank() == 0) {
    std::vector<std::string> names;
    for (const flat::FlatEntry* entry : changed) {
      names.push_back(entry->name);
    }
    base::log_info(
        "weights were changed in place, training goes on from the new ones: " +
        flat::shortened(names));
  }
}

double gradient_norm(EngineState& state) {
  size_t parameters = 0;
  for (const auto& group : state.groups) {
    parameters += group->entries().size();
  }
  int64_t note = kChanged * std::exchange(state.checks.changes, 0);
  if (state.reducer->unused().size() == parameters) {
    note |= kNoGradient;
  }
  if (state.reducer->has_more()) {
    note |= kHasMore;
  }
  zero::ShardedOptimizer::Norm norm = state.optimizer->gradient_norm(note);
  try {
    check_notes(norm.notes, parameters);
  } catch (...) {
    state.forget_gradients(); // on all ranks: the step begins anew
    throw;
  }
  const auto has_more = [](int64_t other) { return (other & kHasMore) != 0; };
  if (std::any_of(norm.notes.begin(), norm.notes.end(), has_more)) {
    state.reducer->add_again();
    norm = state.optimizer->gradient_norm();
  }
  return norm.value;
}

} // namespace deepspeed
