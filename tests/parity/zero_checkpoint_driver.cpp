// A small program around the checkpoint library for the Python parity tests of
// DeepSpeed's checkpoint folders.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/checkpoint/commit.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/checkpoint/zero_shard.h"
#include "deepspeed/formats/json_value.h"
#include "deepspeed/formats/safetensors.h"

namespace {

using namespace deepspeed;
using namespace deepspeed::checkpoint;
using base::Json;

Json scaler_json(const LossScalerState& scaler) {
  return {
      {"dynamic", scaler.dynamic},
      {"scale", scaler.scale},
      {"iteration", scaler.iteration},
      {"last_overflow", scaler.last_overflow},
      {"window", scaler.window},
      {"min_scale", scaler.min_scale},
      {"hysteresis", scaler.hysteresis},
      {"hysteresis_left", scaler.hysteresis_left},
      {"consecutive_hysteresis", scaler.consecutive_hysteresis}};
}

// Everything but tensors.
Json describe_checkpoint(const ZeroCheckpoint& checkpoint) {
  Json json;
  json["tag"] = checkpoint.tag();
  json["stage"] = checkpoint.topology().stage;
  json["ranks"] = checkpoint.topology().ranks;
  json["dtype"] = formats::dtype_name(checkpoint.topology().dtype);
  json["skipped"] = checkpoint.skipped();
  json["global_steps"] = checkpoint.global_steps();
  json["global_samples"] = checkpoint.global_samples();
  json["skipped_steps"] = checkpoint.skipped_steps();
  json["lr_scheduler"] = formats::json_of_value(checkpoint.lr_scheduler());
  json["client_state"] = formats::json_of_value(checkpoint.client_state());
  json["ds_config"] = formats::json_of_value(checkpoint.ds_config());
  json["loss_scaler"] = scaler_json(checkpoint.loss_scaler());
  json["clip_grad"] = checkpoint.clip_grad();
  json["buffers"] = checkpoint.buffers();
  json["frozen"] = checkpoint.frozen();
  json["shared"] = Json::object();
  for (const auto& [alias, owner] : checkpoint.shared()) {
    json["shared"][alias] = owner;
  }
  json["states"] = checkpoint.state_names();
  json["groups"] = Json::array();
  for (const ZeroGroup& group : checkpoint.topology().groups) {
    Json parameters = Json::array();
    for (const ZeroParameter& parameter : group.parameters) {
      Json states = Json::array();
      for (const std::string& name : checkpoint.state_names()) {
        if (checkpoint.has_state(name, parameter.name)) {
          states.push_back(name);
        }
      }
      parameters.push_back(
          {{"name", parameter.name},
           {"sizes", parameter.sizes},
           {"step", checkpoint.step(parameter.name)},
           {"states", states}});
    }
    json["groups"].push_back(
        {{"parameters", parameters},
         {"hyperparameters", formats::json_of_value(group.hyperparameters)}});
  }
  return json;
}

// fp32 weights and states as "fp32/NAME", "exp_avg/NAME" ..., and the module as
// "module/NAME".
std::vector<formats::NamedTensor> all_tensors(
    const ZeroCheckpoint& checkpoint) {
  std::vector<formats::NamedTensor> out;
  for (const ZeroGroup& group : checkpoint.topology().groups) {
    for (const ZeroParameter& parameter : group.parameters) {
      std::vector<std::string> kinds = {"fp32"};
      for (const std::string& name : checkpoint.state_names()) {
        if (checkpoint.has_state(name, parameter.name)) {
          kinds.push_back(name);
        }
      }
      for (const std::string& kind : kinds) {
        const int64_t numel = parameter.numel();
        auto data =
            std::make_shared<std::vector<float>>(static_cast<size_t>(numel));
        // In two parts, as another number of ranks would.
        const int64_t half = numel / 2;
        for (const auto& [begin, end] :
             {std::pair(int64_t{0}, half), std::pair(half, numel)}) {
          if (kind == "fp32") {
            checkpoint.read_fp32(
                parameter.name, begin, end, data->data() + begin);
          } else {
            checkpoint.read_state(
                kind, parameter.name, begin, end, data->data() + begin);
          }
        }
        out.push_back(
            {kind + "/" + parameter.name,
             formats::Tensor::borrow(
                 formats::DType::float32,
                 parameter.sizes,
                 data->data(),
                 data)});
      }
    }
  }
  for (const formats::NamedTensor& named : checkpoint.module()) {
    out.push_back({"module/" + named.name, named.tensor});
  }
  return out;
}

// One rank's part of the optimizer, read through the checkpoint.
OptimizerStates optimizer_part(
    const ZeroCheckpoint& checkpoint,
    const ZeroTopology& topology,
    int rank) {
  OptimizerStates out;
  out.loss_scaler = checkpoint.loss_scaler();
  out.clip_grad = checkpoint.clip_grad() < 0 ? 0 : checkpoint.clip_grad();
  for (const ZeroGroup& group : topology.groups) {
    Shard shard = shard_of(group.numel(), topology.ranks, rank);
    if (topology.stage == 0) {
      shard = {0, group.numel(), group.numel()};
    }
    GroupStates states;
    std::vector<std::string> kinds = {"fp32"};
    kinds.insert(
        kinds.end(),
        checkpoint.state_names().begin(),
        checkpoint.state_names().end());
    for (const std::string& kind : kinds) {
      auto data =
          std::make_shared<std::vector<float>>(static_cast<size_t>(shard.size));
      int64_t begin = 0;
      for (const ZeroParameter& parameter : group.parameters) {
        states.step = std::max(states.step, checkpoint.step(parameter.name));
        const Overlap part = overlap_of(shard, begin, parameter.numel());
        float* at = data->data() + part.in_shard;
        const int64_t from = part.in_parameter;
        if (part.numel > 0 && kind == "fp32") {
          checkpoint.read_fp32(parameter.name, from, from + part.numel, at);
        } else if (part.numel > 0) {
          checkpoint.read_state(
              kind, parameter.name, from, from + part.numel, at);
        }
        begin += parameter.numel();
      }
      formats::Tensor tensor = formats::Tensor::borrow(
          formats::DType::float32, {shard.size}, data->data(), data);
      if (kind == "fp32") {
        states.fp32 = tensor;
      } else {
        states.states.push_back({kind, tensor});
      }
    }
    out.groups.push_back(std::move(states));
  }
  return out;
}

// Writes what was read for another stage and number of ranks.
void convert(
    const ZeroCheckpoint& checkpoint,
    const std::string& folder,
    int stage,
    int ranks,
    bool flat) {
  ZeroTopology topology = checkpoint.topology();
  topology.stage = stage;
  topology.ranks = ranks;
  ModelStates model;
  model.module = checkpoint.module();
  model.buffers = checkpoint.buffers();
  model.frozen = checkpoint.frozen();
  model.shared = checkpoint.shared();
  model.lr_scheduler = checkpoint.lr_scheduler();
  model.skipped_steps = checkpoint.skipped_steps();
  model.global_steps = checkpoint.global_steps();
  model.global_samples = checkpoint.global_samples();
  model.ds_config = checkpoint.ds_config();
  model.client_state = checkpoint.client_state();
  CommitOptions options;
  options.folder = folder;
  options.tag = checkpoint.tag();
  options.run_id = "0123456789abcdef0123456789abcdef";
  CheckpointCommit commit(options);
  commit.begin(0);
  Manifest manifest;
  manifest.tag = checkpoint.tag();
  manifest.run_id = options.run_id;
  manifest.stage = stage;
  manifest.ranks = ranks;
  manifest.dtype = formats::dtype_name(topology.dtype);
  manifest.global_steps = checkpoint.global_steps();
  if (stage == 0) {
    const OptimizerStates whole = optimizer_part(checkpoint, topology, 0);
    manifest.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(
            topology,
            model,
            &whole,
            flat ? Stage0Layout::flat : Stage0Layout::parameters)));
  } else {
    manifest.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(topology, model, nullptr)));
    for (int rank = 0; rank < ranks; ++rank) {
      manifest.files.push_back(commit.add(
          shard_states_name(rank, topology.dtype == formats::DType::bfloat16),
          shard_states_value(
              topology,
              rank,
              optimizer_part(checkpoint, topology, rank),
              checkpoint.ds_config())));
    }
  }
  commit.publish(manifest);
}

int run(const std::vector<std::string>& args) {
  const std::string verb = args.size() > 1 ? args[1] : "";
  if (verb == "describe" && args.size() == 3) {
    ZeroOpenOptions options;
    options.weights_only = true;
    std::puts(describe_checkpoint(ZeroCheckpoint::open(args[2], "", options))
                  .dump()
                  .c_str());
  } else if (verb == "tensors" && args.size() >= 4) {
    ZeroOpenOptions options;
    if (args.size() == 5) {
      for (const Json& group : base::parse_json(args[4], "groups")) {
        options.stage0_groups.push_back(group.get<std::vector<std::string>>());
      }
    }
    formats::save_safetensors(
        args[3], all_tensors(ZeroCheckpoint::open(args[2], "", options)));
  } else if (verb == "convert" && args.size() == 7) {
    convert(
        ZeroCheckpoint::open(args[2]),
        args[3],
        std::stoi(args[4]),
        std::stoi(args[5]),
        args[6] == "flat");
  } else {
    std::fprintf(
        stderr,
        "usage: zero_checkpoint_driver describe FOLDER |\n"
        "       tensors FOLDER OUT.safetensors [GROUPS_JSON] |\n"
        "       convert FOLDER OUT_FOLDER STAGE RANKS flat|parameters\n");
    return static_cast<int>(base::ExitCode::usage);
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program(
      [&] { return run(std::vector<std::string>(argv, argv + argc)); });
}
