// What ZeroCheckpoint holds, and the functions that fill it from the trees of
// the files.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "deepspeed/checkpoint/flat_image.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/formats/field.h"

namespace deepspeed::checkpoint {

struct ZeroCheckpoint::Data {
  // Where a parameter of a param group lies in the flat buffer of its group.
  struct Place {
    size_t group = 0;
    int64_t begin = 0;
    int64_t numel = 0;
    int64_t step = 0;
  };

  std::string tag;
  std::string path;
  std::vector<std::string> skipped;
  std::vector<std::string> dropped;
  std::vector<std::string> notes;
  base::Json manifest;
  std::vector<std::shared_ptr<const file::MappedFile>> mappings;

  ZeroTopology topology;
  std::vector<formats::NamedTensor> module;
  std::unordered_map<std::string, size_t> module_index;
  std::vector<std::string> buffers;
  std::vector<std::string> frozen;
  std::vector<std::pair<std::string, std::string>> shared;

  int64_t global_steps = 0;
  int64_t global_samples = -1;
  int64_t skipped_steps = 0;
  formats::Value lr_scheduler;
  formats::Value ds_config;
  formats::Value client_state;
  LossScalerState loss_scaler;
  double clip_grad = -1;

  std::unordered_map<std::string, Place> places;
  std::vector<FlatImage> fp32; // for each param group
  std::vector<std::string> state_names;
  std::vector<std::map<std::string, FlatImage>> states; // by name, each group
};

namespace zero_load {

using Data = ZeroCheckpoint::Data;

// Module, counters, scheduler, client state; for sharded stages also names and
// order of the parameters.
void load_model(const formats::Field& root, Data& data);
// Optimizer and fp32 weights, from the shards ...
void load_shards(const ZeroTag& tag, Data& data);
// ... or from the model file of stage 0.
void load_stage0(
    const formats::Field& root,
    const ZeroOpenOptions& options,
    Data& data);

// What tells that the model file and the shards are not of one checkpoint: more
// updates than steps, or weights that differ (a few elements of each parameter
// are compared, rounded to its dtype). Empty if nothing does.
std::string contradiction(const Data& data);

// Sets the places of the topology's parameters, with `paddings` elements behind
// each (none if empty). Returns the flat size of each group.
std::vector<int64_t> place_parameters(
    Data& data,
    const std::vector<std::vector<int64_t>>& paddings);

// A list of OrderedDicts name -> torch.Size. Every name is in the module.
std::vector<ZeroGroup> read_param_shapes(
    const formats::Field& field,
    const Data& data);
// A group's dict without "params".
formats::Value read_hyperparameters(const formats::Field& group);
// "step": an integer, or a tensor of one element.
int64_t read_step(const formats::Field& field);
// The tensor, which must have a floating dtype.
const formats::Tensor& read_floating(const formats::Field& field);

} // namespace zero_load
} // namespace deepspeed::checkpoint
