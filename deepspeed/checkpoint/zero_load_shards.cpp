// Reading *_optim_states.pt of stages 1 and 2: DeepSpeedZeroOptimizer and
// BF16_Optimizer of Python, and ours.
#include <algorithm>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_data.h"
#include "deepspeed/checkpoint/zero_keys.h"
#include "deepspeed/checkpoint/zero_load_scaler.h"
#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/formats/dump.h"

namespace deepspeed::checkpoint::zero_load {
namespace {

using namespace zero_keys;

[[noreturn]] void disagree(
    const std::string& what,
    const formats::Field& field) {
  field.fail(
      "differs from shard 0 in " + what +
      ": the shards are not of one checkpoint");
}

// The optimizer's param groups; absent in an "elastic" file.
std::optional<formats::Field> param_groups(const formats::Field& optimizer) {
  const formats::Field base = optimizer.at(kBaseOptimizerState);
  if (base.value().get_if<formats::List>() != nullptr) {
    return std::nullopt;
  }
  return base.at(kParamGroups);
}

// The state entries of group g; nothing before the first step.
std::optional<formats::Field> group_state(
    const formats::Field& optimizer,
    size_t g) {
  const formats::Field base = optimizer.at(kBaseOptimizerState);
  const int64_t number = static_cast<int64_t>(g);
  const auto groups = param_groups(optimizer);
  if (!groups) {
    return base.at(number);
  }
  const formats::Field numbers = groups->at(number).at(kParams);
  if (numbers.items().size() != 1) {
    numbers.fail("expected one flat parameter");
  }
  return base.at(kState).find(numbers.at(0).integer());
}

// The stage in the file, or for BF16_Optimizer the one of the configuration.
int read_stage(const formats::Field& root, const formats::Field& optimizer) {
  const auto stage = optimizer.find(kZeroStage);
  if (!stage) {
    const auto config = root.find(kDsConfig);
    const auto zero =
        config && config->value().get_if<formats::Dict>() != nullptr
        ? config->find("zero_optimization")
        : std::nullopt;
    const auto number = zero ? zero->find("stage") : std::nullopt;
    return number ? static_cast<int>(number->integer()) : 1;
  }
  const formats::Object* object = stage->value().object();
  const int64_t* number = nullptr;
  if (object != nullptr && object->arguments.size() == 1) {
    number = object->arguments[0].get_if<int64_t>();
  } else {
    number = stage->value().get_if<int64_t>();
  }
  if (number == nullptr || *number < 1 || *number > 2) {
    stage->fail("expected ZeRO stage 1 or 2");
  }
  return static_cast<int>(*number);
}

// Elements behind each parameter (zero_optimization.parameter_alignment).
std::vector<std::vector<int64_t>> read_paddings(
    const formats::Field& optimizer,
    const ZeroTopology& topology) {
  std::vector<std::vector<int64_t>> paddings;
  const auto found = optimizer.find(kAlignmentPaddings);
  if (!found || found->is_none()) {
    return paddings;
  }
  for (size_t g = 0; g < topology.groups.size(); ++g) {
    const formats::Field group = found->at(static_cast<int64_t>(g));
    const size_t count = topology.groups[g].parameters.size();
    if (group.items().size() != count) {
      group.fail("expected " + std::to_string(count) + " paddings");
    }
    std::vector<int64_t> list;
    for (size_t i = 0; i < count; ++i) {
      const formats::Field padding = group.at(static_cast<int64_t>(i));
      // 16 bytes at most.
      if (padding.integer() < 0 || padding.integer() >= 16) {
        padding.fail("not a padding");
      }
      list.push_back(padding.integer());
    }
    paddings.push_back(std::move(list));
  }
  return paddings;
}

// Shards are numbered from 0 on, so the last ones are missing.
std::string missing_ranks(int64_t files, int64_t ranks) {
  if (files >= ranks) {
    return "";
  }
  return files + 1 == ranks
      ? "; that of rank " + std::to_string(files) + " is missing"
      : "; those of ranks " + std::to_string(files) + " to " +
          std::to_string(ranks - 1) + " are missing";
}

void check_count(
    const formats::Field& optimizer,
    const ZeroTag& tag,
    const Data& data) {
  const formats::Field counts = optimizer.at(kPartitionCount);
  const size_t groups = data.topology.groups.size();
  if (counts.items().size() != groups) {
    counts.fail(
        "expected " + std::to_string(groups) + " param groups, found " +
        std::to_string(counts.items().size()));
  }
  const int64_t files = static_cast<int64_t>(tag.shards.size());
  for (size_t g = 0; g < groups; ++g) {
    const formats::Field count = counts.at(static_cast<int64_t>(g));
    if (count.integer() != files || data.topology.ranks != files) {
      throw base::Error(
          base::ExitCode::data,
          "written by " + std::to_string(data.topology.ranks) +
              " ranks in shards of " + std::to_string(count.integer()) +
              ", but there are " + std::to_string(files) + " shards" +
              missing_ranks(files, data.topology.ranks),
          tag.path,
          "find the missing files, or take another tag");
    }
  }
}

// A flat tensor of the shard: with its padding or without.
formats::Tensor read_flat(const formats::Field& field, const Shard& shard) {
  const formats::Tensor& tensor = read_floating(field);
  if (tensor.sizes.size() != 1 ||
      (tensor.numel() != shard.used && tensor.numel() != shard.size)) {
    field.fail(
        "expected " + std::to_string(shard.used) + " or " +
        std::to_string(shard.size) + " elements, found " +
        formats::describe(tensor));
  }
  return tensor;
}

// Names of the tensors of a state, without scalars and what is None.
std::vector<std::string> tensor_names(
    const std::optional<formats::Field>& state) {
  std::vector<std::string> names;
  if (state) {
    for (const formats::DictEntry& entry : state->dict().entries) {
      const std::string* name = entry.key.get_if<std::string>();
      const formats::Tensor* tensor = entry.value.tensor();
      if (name != nullptr && tensor != nullptr && !tensor->sizes.empty()) {
        names.push_back(*name);
      }
    }
  }
  return names;
}

int64_t step_of(
    const formats::Field& optimizer,
    const std::optional<formats::Field>& state) {
  if (const auto step = optimizer.find(kBaseOptimizerStep)) {
    return read_step(*step);
  }
  const auto step = state ? state->find(kStep) : std::nullopt;
  return step ? read_step(*step) : 0;
}

// What the shards of one checkpoint have in common.
struct Common {
  std::string groups; // param groups as JSON
  std::string scaler; // loss scaler as JSON
  std::vector<int64_t> steps; // of each param group
  std::vector<std::vector<std::string>> names; // of each group's states
};

Common common_of(const formats::Field& optimizer, size_t groups) {
  Common common;
  if (const auto found = param_groups(optimizer)) {
    common.groups = formats::dump(found->value()).dump();
  }
  if (const auto scaler = optimizer.find(kLossScaler)) {
    common.scaler = formats::dump(scaler->value()).dump();
  }
  for (size_t g = 0; g < groups; ++g) {
    const auto state = group_state(optimizer, g);
    common.names.push_back(tensor_names(state));
    common.steps.push_back(step_of(optimizer, state));
  }
  return common;
}

void compare(
    const Common& first,
    const Common& other,
    const formats::Field& shard) {
  for (size_t g = 0; g < first.steps.size(); ++g) {
    if (other.steps[g] != first.steps[g]) {
      disagree(
          "the step: " + std::to_string(other.steps[g]) + " and " +
              std::to_string(first.steps[g]),
          shard);
    }
  }
  if (other.names != first.names) {
    disagree("the optimizer's states", shard);
  }
  if (other.groups != first.groups) {
    disagree("the param groups", shard);
  }
  if (other.scaler != first.scaler) {
    disagree("the loss scaler", shard);
  }
}

// Adds the tensors of one shard to the images.
void add_shard(
    const formats::Field& optimizer,
    int rank,
    const std::vector<int64_t>& flat,
    Data& data) {
  const formats::Field weights = optimizer.at(kFp32Partition);
  if (weights.items().size() != flat.size()) {
    weights.fail("expected " + std::to_string(flat.size()) + " param groups");
  }
  for (size_t g = 0; g < flat.size(); ++g) {
    const Shard shard = shard_of(flat[g], data.topology.ranks, rank);
    const formats::Field fp32 = weights.at(static_cast<int64_t>(g));
    data.fp32[g].add(shard.offset, shard.used, read_flat(fp32, shard));
    const auto state = group_state(optimizer, g);
    for (const std::string& name : tensor_names(state)) {
      data.states[g][name].add(
          shard.offset, shard.used, read_flat(state->at(name), shard));
    }
  }
}

} // namespace

void load_shards(const ZeroTag& tag, Data& data) {
  const formats::Field first_root(tag.shards[0].value, tag.shards[0].path);
  const formats::Field first = first_root.at(kOptimizerStateDict);
  data.topology.stage = read_stage(first_root, first);
  check_count(first, tag, data);
  const size_t count = data.topology.groups.size();
  const std::vector<int64_t> flat =
      place_parameters(data, read_paddings(first, data.topology));
  const Common common = common_of(first, count);
  if (const auto groups = param_groups(first)) {
    for (size_t g = 0; g < count; ++g) {
      data.topology.groups[g].hyperparameters =
          read_hyperparameters(groups->at(static_cast<int64_t>(g)));
    }
  }
  if (const auto scaler = first.find(kLossScaler)) {
    data.loss_scaler = read_loss_scaler(*scaler);
  }
  if (const auto clip = first.find(kClipGrad)) {
    data.clip_grad = clip->real();
  }
  for (size_t rank = 0; rank < tag.shards.size(); ++rank) {
    const formats::Field root(tag.shards[rank].value, tag.shards[rank].path);
    const formats::Field optimizer = root.at(kOptimizerStateDict);
    if (rank > 0) {
      compare(common, common_of(optimizer, count), root);
    }
    add_shard(optimizer, static_cast<int>(rank), flat, data);
  }
  for (auto& [name, place] : data.places) {
    place.step = common.steps[place.group];
  }
}

} // namespace deepspeed::checkpoint::zero_load
