// Reading DeepSpeed's checkpoints of ZeRO stages 0, 1 and 2, whoever wrote them
// and for whatever number of ranks: any range of any parameter is read from
// wherever it lies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "deepspeed/base/json.h"
#include "deepspeed/checkpoint/zero_states.h"

namespace deepspeed::checkpoint {

struct ZeroOpenOptions {
  // Compare every file with the manifest's hash, or without a manifest its
  // entries with their CRC-32. Reads all files once. Sizes, shard count and
  // shapes are checked in any case.
  bool verify = true;
  // Names of the parameters of each param group in flat order. Stage 0 files of
  // Python do not tell them. Needed for fp32 ones with several param groups or
  // frozen parameters (Error(config) without it); those of 16-bit training are
  // found by their values otherwise.
  std::vector<std::vector<std::string>> stage0_groups = {};
  // Names in it that the checkpoint does not have are passed over.
  bool new_parameters = false;
  // Such a file may do without param groups and optimizer: topology().groups is
  // then empty, and frozen() has all parameters.
  bool weights_only = false;
  // Without a tag: whether the newest tag that is whole is taken in place of
  // the one that `latest` names, if that one cannot be. A run that goes on
  // does, and says so; what makes weights of a checkpoint does not.
  bool newest_whole = false;
};

// One tag, mapped into memory. Immutable, cheap to copy (copies share the
// mapping), safe to read from several threads. The files must not be changed in
// place meanwhile; they may be renamed or deleted.
class ZeroCheckpoint {
 public:
  // `folder` is one that holds `latest` and tags, or the folder of a tag, which
  // `tag` then must not contradict: see checkpoint_path.h. With a tag: this one
  // or an error. `tag` empty: the one that FOLDER/latest names. If that is not
  // whole, or `latest` is damaged or missing: with newest_whole the newest tag
  // that is, and skipped() tells why, else Error(data) that names this tag.
  // Error(no_input): no checkpoint there, or no such tag. Error(data): damaged,
  // incomplete, shards of different steps, or none of the tags is whole.
  // Error(config): whole, but of a kind that is not read: stage 3, tensor or
  // pipeline parallel, mixture of experts.
  static ZeroCheckpoint open(
      const std::string& folder,
      const std::string& tag = "",
      const ZeroOpenOptions& options = {});

  const std::string& tag() const;
  // FOLDER/TAG
  const std::string& path() const;
  // One line for each newer tag that was not taken, and for a bad `latest`.
  const std::vector<std::string>& skipped() const;
  // What else a user should hear: a manifest that is not that of these files,
  // a model file whose weights are not those of the shards.
  const std::vector<std::string>& notes() const;
  // ds_manifest.json; null if Python wrote the checkpoint.
  const base::Json& manifest() const;

  // Stage, ranks and dtype of the writer; param groups with their order, shapes
  // and hyperparameters (without "params").
  const ZeroTopology& topology() const;

  // The model's state_dict() in its order, in the dtype of the file, tied names
  // included. The tensors view the mapping and keep it alive.
  const std::vector<formats::NamedTensor>& module() const;
  const formats::Tensor* find_module(
      const std::string& name) const; // null: no such
  const std::vector<std::string>& buffers() const;
  const std::vector<std::string>& frozen() const;
  // alias -> owner. For stage 0, which does not tell, found by shared storage.
  const std::vector<std::pair<std::string, std::string>>& shared() const;

  int64_t global_steps() const;
  int64_t global_samples() const; // -1 if the file does not say
  int64_t skipped_steps() const;
  const formats::Value& lr_scheduler() const; // None without one
  const formats::Value& ds_config() const;
  // All keys beside the engine's own, but without values of classes that nobody
  // here knows; dropped() names those: "['args']['mode'] (an object of M)".
  const formats::Value& client_state() const;
  const std::vector<std::string>& dropped() const;
  const LossScalerState& loss_scaler() const;
  double clip_grad() const; // -1 if the file does not say

  // The fp32 master weights of elements [begin, end) of a parameter of a param
  // group: of stage 0 in fp32 the weights themselves. std::out_of_range for a
  // name that is in no param group, or a range that is not in the parameter.
  void read_fp32(
      const std::string& parameter,
      int64_t begin,
      int64_t end,
      float* out) const;

  // Names of the optimizer's state tensors, such as exp_avg; empty if it never
  // made a step.
  const std::vector<std::string>& state_names() const;
  // Whether the optimizer has this state for this parameter: torch's have none
  // for parameters that never had a gradient.
  bool has_state(const std::string& state, const std::string& parameter) const;
  // Zeros where there is no state. Converted to float if it is stored in
  // another floating type. Throws as read_fp32() does.
  void read_state(
      const std::string& state,
      const std::string& parameter,
      int64_t begin,
      int64_t end,
      float* out) const;
  // Updates of this parameter so far, 0 if it has no state.
  int64_t step(const std::string& parameter) const;

  // Gives back the memory of what was read; it stays readable.
  void release_pages() const;

  struct Data;

 private:
  explicit ZeroCheckpoint(std::shared_ptr<const Data> data)
      : data_(std::move(data)) {}

  std::shared_ptr<const Data> data_;
};

} // namespace deepspeed::checkpoint
