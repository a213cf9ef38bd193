// Reading mp_rank_00_model_states.pt.
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_data.h"
#include "deepspeed/checkpoint/zero_keys.h"

namespace deepspeed::checkpoint::zero_load {
namespace {

using namespace zero_keys;

int64_t integer_or(
    const formats::Field& root,
    std::string_view key,
    int64_t fallback) {
  const auto found = root.find(key);
  return found && !found->is_none() ? found->integer() : fallback;
}

formats::Value value_or_none(const formats::Field& root, std::string_view key) {
  const auto found = root.find(key);
  return found ? found->value() : formats::Value();
}

// torch.Size, a tuple or a list.
std::vector<int64_t> read_sizes(const formats::Field& field) {
  const formats::Value* sizes = &field.value();
  if (const formats::Object* object = sizes->object()) {
    if (object->name != kSizeClass || object->arguments.size() != 1) {
      field.fail("expected a torch.Size, found " + formats::describe(*sizes));
    }
    sizes = &object->arguments[0];
  }
  const formats::List* items = sizes->get_if<formats::List>();
  if (const formats::Tuple* tuple = sizes->get_if<formats::Tuple>()) {
    items = &tuple->items;
  }
  if (items == nullptr) {
    field.fail("expected a shape, found " + formats::describe(*sizes));
  }
  std::vector<int64_t> out;
  for (const formats::Value& item : *items) {
    const int64_t* size = item.get_if<int64_t>();
    if (size == nullptr || *size < 0) {
      field.fail("a size is " + formats::describe(item));
    }
    out.push_back(*size);
  }
  if (!formats::checked_byte_size(out, formats::DType::float32)) {
    field.fail("the shape is too large");
  }
  return out;
}

void load_module(const formats::Field& root, Data& data) {
  const formats::Field module = root.at(kModule);
  for (const formats::DictEntry& entry : module.dict().entries) {
    const std::string* name = entry.key.get_if<std::string>();
    if (name == nullptr) {
      module.fail("a tensor's name is " + formats::describe(entry.key));
    }
    data.module_index.emplace(*name, data.module.size());
    data.module.push_back({*name, module.at(*name).tensor()});
  }
  const formats::Field buffers = root.at(kBufferNames);
  for (size_t i = 0; i < buffers.items().size(); ++i) {
    data.buffers.push_back(buffers.at(static_cast<int64_t>(i)).string());
  }
}

// Stage 0 does not write tied names, but they share their storage.
void find_shared(Data& data) {
  const std::unordered_set<std::string> buffers(
      data.buffers.begin(), data.buffers.end());
  std::map<std::pair<const void*, int64_t>, const formats::NamedTensor*> owners;
  for (const formats::NamedTensor& named : data.module) {
    const formats::Tensor& tensor = named.tensor;
    if (buffers.contains(named.name) || tensor.numel() == 0) {
      continue;
    }
    const auto [found, is_new] = owners.try_emplace(
        {tensor.storage.get(), tensor.storage_offset}, &named);
    if (!is_new && found->second->tensor.sizes == tensor.sizes) {
      data.shared.emplace_back(named.name, found->second->name);
    }
  }
}

void load_shared(const formats::Field& root, Data& data) {
  const auto shared = root.find(kSharedParams);
  if (!shared || shared->is_none()) {
    find_shared(data);
    return;
  }
  for (const formats::DictEntry& entry : shared->dict().entries) {
    const std::string* alias = entry.key.get_if<std::string>();
    if (alias == nullptr) {
      shared->fail("a name is " + formats::describe(entry.key));
    }
    data.shared.emplace_back(*alias, shared->at(*alias).string());
  }
}

void load_counters(const formats::Field& root, Data& data) {
  data.global_steps = root.at(kGlobalSteps).integer();
  data.global_samples = integer_or(root, kGlobalSamples, -1);
  data.skipped_steps = integer_or(root, kSkippedSteps, 0);
  data.lr_scheduler = value_or_none(root, kLrScheduler);
  data.ds_config = value_or_none(root, kDsConfig);
  const int64_t ranks = root.at(kDpWorldSize).integer();
  if (ranks < 1 || ranks > INT32_MAX) {
    root.at(kDpWorldSize).fail("expected a number of ranks");
  }
  data.topology.ranks = static_cast<int>(ranks);
  if (const int64_t parts = integer_or(root, kMpWorldSize, 1); parts != 1) {
    throw base::Error(
        base::ExitCode::config,
        "a checkpoint of a model in " + std::to_string(parts) + " parts",
        data.path,
        "deepspeed.cpp reads checkpoints of plain data parallelism");
  }
}

void load_client_state(const formats::Field& root, Data& data) {
  formats::Dict client;
  for (const formats::DictEntry& entry : root.dict().entries) {
    const std::string* key = entry.key.get_if<std::string>();
    if (key == nullptr || !is_engine_key(*key)) {
      client.entries.push_back(entry);
    }
  }
  data.client_state =
      formats::without_unknown(std::move(client), &data.dropped);
}

} // namespace

std::vector<ZeroGroup> read_param_shapes(
    const formats::Field& field,
    const Data& data) {
  std::vector<ZeroGroup> groups;
  std::unordered_set<std::string> seen;
  for (size_t g = 0; g < field.items().size(); ++g) {
    const formats::Field shapes = field.at(static_cast<int64_t>(g));
    ZeroGroup group;
    for (const formats::DictEntry& entry : shapes.dict().entries) {
      const std::string* name = entry.key.get_if<std::string>();
      if (name == nullptr || !seen.insert(*name).second) {
        shapes.fail(
            formats::describe(entry.key) + " is no name, or stands twice");
      }
      const formats::Field sizes = shapes.at(*name);
      group.parameters.push_back({*name, read_sizes(sizes)});
      const auto found = data.module_index.find(*name);
      if (found == data.module_index.end() ||
          data.module[found->second].tensor.sizes !=
              group.parameters.back().sizes) {
        sizes.fail("the module has no tensor of that name and shape");
      }
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<int64_t> place_parameters(
    Data& data,
    const std::vector<std::vector<int64_t>>& paddings) {
  std::vector<int64_t> flat;
  for (size_t g = 0; g < data.topology.groups.size(); ++g) {
    int64_t at = 0;
    const auto& parameters = data.topology.groups[g].parameters;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const int64_t numel = parameters[i].numel();
      data.places[parameters[i].name] = {g, at, numel, 0};
      at += numel + (paddings.empty() ? 0 : paddings[g][i]);
    }
    flat.push_back(at);
  }
  data.fp32.resize(flat.size());
  data.states.resize(flat.size());
  return flat;
}

formats::Value read_hyperparameters(const formats::Field& group) {
  formats::Dict out;
  for (const formats::DictEntry& entry : group.dict().entries) {
    const std::string* key = entry.key.get_if<std::string>();
    if (key == nullptr || *key != kParams) {
      out.entries.push_back(entry);
    }
  }
  return out;
}

const formats::Tensor& read_floating(const formats::Field& field) {
  const formats::Tensor& tensor = field.tensor();
  if (!is_floating(tensor.dtype)) {
    field.fail("expected floating point, found " + formats::describe(tensor));
  }
  return tensor;
}

int64_t read_step(const formats::Field& field) {
  if (field.value().tensor() == nullptr) {
    return field.integer();
  }
  const formats::Tensor& tensor = field.tensor();
  if (tensor.numel() != 1) {
    field.fail("expected one number, found " + formats::describe(tensor));
  }
  if (tensor.dtype == formats::DType::int64) {
    int64_t step = 0;
    tensor.copy_to(reinterpret_cast<std::byte*>(&step));
    return step;
  }
  float step = 0;
  read_floats(read_floating(field), 0, 1, &step);
  if (!(step >= 0 && step < 0x1p53f)) {
    field.fail("not a step");
  }
  return static_cast<int64_t>(step);
}

void load_model(const formats::Field& root, Data& data) {
  load_counters(root, data);
  load_module(root, data);
  load_shared(root, data);
  load_client_state(root, data);
  if (const auto shapes = root.find(kParamShapes);
      shapes && !shapes->is_none()) {
    data.topology.groups = read_param_shapes(*shapes, data);
  }
}

} // namespace deepspeed::checkpoint::zero_load
