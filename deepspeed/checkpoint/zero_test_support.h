// A small model with its checkpoints, for tests.
#pragma once

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/checkpoint/commit.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/checkpoint/zero_shard.h"

namespace deepspeed::checkpoint::test {

inline constexpr const char* kRunId = "0123456789abcdef0123456789abcdef";

// Two param groups of odd sizes, a tied name, a frozen parameter, two buffers.
// Values are functions of the name and the place, so that any can be told.
struct SmallModel {
  int stage = 1;
  int ranks = 2;
  formats::DType dtype = formats::DType::bfloat16;
  int64_t step = 7;

  ZeroTopology topology() const {
    ZeroTopology out;
    out.stage = stage;
    out.ranks = ranks;
    out.dtype = dtype;
    out.groups.resize(2);
    out.groups[0].parameters = {
        {"embed.weight", {5, 3}}, {"a.weight", {3, 7}}, {"b.weight", {2}}};
    out.groups[1].parameters = {{"a.bias", {3}}, {"b.bias", {1}}};
    for (ZeroGroup& group : out.groups) {
      formats::Value given = formats::make_dict();
      given.set("lr", 0.5);
      group.hyperparameters = complete_hyperparameters("Adam", given);
    }
    return out;
  }

  static float value(const std::string& kind, size_t group, int64_t i) {
    const float base = kind == "fp32" ? 1.0f : kind == "exp_avg" ? -1.0f : 4.0f;
    return base +
        static_cast<float>(100 * group + static_cast<size_t>(i)) / 1024;
  }

  static formats::Tensor floats(
      std::vector<float> values,
      std::vector<int64_t> sizes) {
    const auto data = std::make_shared<std::vector<float>>(std::move(values));
    return formats::Tensor::borrow(
        formats::DType::float32, std::move(sizes), data->data(), data);
  }

  // Elements [begin, begin + used) of a group, padded with zeros to `size`.
  static formats::Tensor flat(
      const std::string& kind,
      size_t group,
      const Shard& part) {
    std::vector<float> values(static_cast<size_t>(part.size));
    for (int64_t i = 0; i < part.used; ++i) {
      values[static_cast<size_t>(i)] = value(kind, group, part.offset + i);
    }
    return floats(std::move(values), {part.size});
  }

  formats::Tensor rounded(const formats::Tensor& tensor) const {
    if (dtype == formats::DType::float32) {
      return tensor;
    }
    const auto data = std::make_shared<std::vector<uint16_t>>();
    std::vector<float> values(static_cast<size_t>(tensor.numel()));
    tensor.copy_to(reinterpret_cast<std::byte*>(values.data()));
    for (const float one : values) {
      data->push_back(
          dtype == formats::DType::bfloat16 ? base::BFloat16(one).bits
                                            : base::Float16(one).bits);
    }
    return formats::Tensor::borrow(dtype, tensor.sizes, data->data(), data);
  }

  ModelStates model() const {
    ModelStates out;
    const ZeroTopology shapes = topology();
    for (size_t g = 0; g < shapes.groups.size(); ++g) {
      int64_t begin = 0;
      for (const ZeroParameter& parameter : shapes.groups[g].parameters) {
        const int64_t numel = parameter.numel();
        formats::Tensor tensor = flat("fp32", g, {begin, numel, numel});
        tensor.sizes = parameter.sizes;
        tensor.strides = formats::contiguous_strides(tensor.sizes);
        out.module.push_back({parameter.name, rounded(tensor)});
        begin += numel;
      }
    }
    out.module.push_back({"frozen.weight", rounded(floats({8, 9}, {2}))});
    out.module.push_back({"table", floats({0.1f, 0.2f}, {2})});
    static const int64_t version = 3;
    out.module.push_back(
        {"version",
         formats::Tensor::borrow(formats::DType::int64, {}, &version)});
    out.module.push_back({"decoder.weight", out.module[0].tensor});
    out.buffers = {"table", "version"};
    out.frozen = {"frozen.weight"};
    out.shared = {{"decoder.weight", "embed.weight"}};
    out.lr_scheduler = formats::make_dict();
    out.lr_scheduler.set("last_batch_iteration", 6);
    out.global_steps = step + 1;
    out.skipped_steps = 1;
    out.global_samples = 96;
    out.client_state.set("checkpoint_step", step);
    return out;
  }

  OptimizerStates optimizer(int rank) const {
    OptimizerStates out;
    const ZeroTopology shapes = topology();
    for (size_t g = 0; g < shapes.groups.size(); ++g) {
      const int64_t numel = shapes.groups[g].numel();
      const Shard part =
          stage == 0 ? Shard{0, numel, numel} : shard_of(numel, ranks, rank);
      GroupStates states;
      states.fp32 = flat("fp32", g, part);
      states.states = {
          {"exp_avg", flat("exp_avg", g, part)},
          {"exp_avg_sq", flat("exp_avg_sq", g, part)}};
      states.step = step;
      out.groups.push_back(std::move(states));
    }
    out.loss_scaler.dynamic = dtype == formats::DType::float16;
    out.loss_scaler.scale = dtype == formats::DType::float16 ? 512 : 1;
    out.loss_scaler.hysteresis_left = 1;
    out.clip_grad = 1.5;
    return out;
  }

  Manifest manifest(const std::string& tag) const {
    Manifest out;
    out.tag = tag;
    out.run_id = kRunId;
    out.stage = stage;
    out.ranks = ranks;
    out.dtype = formats::dtype_name(dtype);
    out.global_steps = step + 1;
    out.extra["position"] = 12;
    return out;
  }

  // All the files of one commit.
  void save(const CommitOptions& options) const {
    CheckpointCommit commit(options);
    commit.begin(1000);
    Manifest records = manifest(options.tag);
    const OptimizerStates whole = optimizer(0);
    records.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(
            topology(), model(), stage == 0 ? &whole : nullptr)));
    for (int rank = 0; stage > 0 && rank < ranks; ++rank) {
      records.files.push_back(commit.add(
          shard_states_name(rank, dtype == formats::DType::bfloat16),
          shard_states_value(
              topology(), rank, optimizer(rank), formats::make_dict())));
    }
    commit.publish(records);
  }

  void save(const std::string& folder, const std::string& tag = "t") const {
    CommitOptions options;
    options.folder = folder;
    options.tag = tag;
    options.run_id = kRunId;
    save(options);
  }
};

inline std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_all(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

} // namespace deepspeed::checkpoint::test
