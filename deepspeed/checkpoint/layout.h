// Every file name of an experiment and of an exported model, in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/formats/value.h"

namespace deepspeed::checkpoint {

// The experiment folder of HelloDeepSpeed.
inline constexpr std::string_view kHparamsFile = "hparams.json";
inline constexpr std::string_view kGitHashFile = "githash.log";
inline constexpr std::string_view kGitDiffFile = "gitdiff.log";
inline constexpr std::string_view kTensorBoardFolder = "tb_dir";
inline constexpr std::string_view kMetricsFile = "metrics.jsonl";
inline constexpr std::string_view kReportFile = "report.html";
inline constexpr std::string_view kLossCurveFile = "loss_curve.svg";
inline constexpr std::string_view kProfileFile = "profile.json";

// A model folder of transformers.
inline constexpr std::string_view kModelConfigFile = "config.json";
inline constexpr std::string_view kModelWeightsFile = "model.safetensors";
inline constexpr std::string_view kTokenizerFile = "tokenizer.json";
inline constexpr std::string_view kTokenizerConfigFile =
    "tokenizer_config.json";
inline constexpr std::string_view kSpecialTokensFile =
    "special_tokens_map.json";
inline constexpr std::string_view kVocabFile = "vocab.json";
inline constexpr std::string_view kMergesFile = "merges.txt";

// Weights of torch.save and the indexes of weights in several files.
inline constexpr std::string_view kTorchWeightsFile = "pytorch_model.bin";
inline constexpr std::string_view kTorchIndexFile =
    "pytorch_model.bin.index.json";
inline constexpr std::string_view kSafetensorsIndexFile =
    "model.safetensors.index.json";

// What transformers would load from a model's folder.
enum class ModelFile {
  weights, // in one file or in parts, an index, an adapter, other frameworks'
  tokenizer,
  other,
};
ModelFile parse_model_file_name(std::string_view name);

// A checkpoint folder of DeepSpeed: `latest`, the script, and FOLDER/TAG/...
inline constexpr std::string_view kLatestFile = "latest";
inline constexpr std::string_view kZeroScriptFile = "zero_to_fp32.py";
inline constexpr std::string_view kModelStatesFile =
    "mp_rank_00_model_states.pt";
inline constexpr std::string_view kManifestFile = "ds_manifest.json";

// "global_step7".
std::string default_tag(int64_t global_steps);

// True for [A-Za-z0-9][A-Za-z0-9._-]{0,127}: what we use as one part of a path.
bool is_tag(std::string_view text);

// "bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt", without "bf16_" for other
// dtypes.
std::string shard_states_name(int rank, bool bf16);

// What a file of a tag's folder is.
struct ZeroFile {
  enum class Kind {
    model_states, // kModelStatesFile
    shard_states, // rank
    stage3_states, // zero_pp_rank_*_model_states.pt
    model_parallel, // mp_rank_01... or a shard of it
    experts, // layer_*_expert_* and expp_rank_*
    other,
  };
  Kind kind = Kind::other;
  int rank = 0;
};
ZeroFile parse_zero_file_name(std::string_view name);

// True for the 32 hexadecimal digits that name one save.
bool is_run_id(std::string_view text);

// ".tmp-TAG-RUNID" while a checkpoint is written and ".trash-TAG-RUNID" while
// one is removed, and whether a name is one of these and nothing else.
std::string unfinished_tag_name(std::string_view tag, std::string_view run_id);
std::string trash_tag_name(std::string_view tag, std::string_view run_id);
bool is_unfinished_name(std::string_view name);

// "pytorch_model-00002-of-00010.bin" for 2 of 10, `name` itself for 1 of 1.
std::string weights_shard_name(std::string_view name, size_t i, size_t count);

// "FOLDER/NAME".
std::string join(const std::string& folder, std::string_view name);

// "checkpoint.iter_7.pt", and the 7 back; nothing for another name.
std::string step_checkpoint_name(int64_t step);
std::optional<int64_t> parse_step_checkpoint_name(std::string_view name);

struct StepFile {
  int64_t step = 0;
  std::string path;
};

// The step checkpoints of a folder by rising step; what is being written is
// left out. Error(no_input) if the folder cannot be read.
std::vector<StepFile> list_step_checkpoints(const std::string& folder);

struct LatestCheckpoint {
  StepFile file;
  formats::Value value; // what the file holds
  // One line for each newer file that did not verify, with the reason.
  std::vector<std::string> skipped;
};

// The newest step checkpoint, which load_torch_file() must accept; with
// `newest_whole` the newest one that it does. Error(no_input) if the folder has
// none, Error(data) if it has some and none is whole: a run never starts again
// from nothing without being told to.
LatestCheckpoint latest_whole_checkpoint(
    const std::string& folder,
    bool newest_whole);

// Removes step checkpoints older than the newest k, except the newest one that
// can be loaded (which is tried: it is read once), and says which files went.
// Error(usage) if k < 1, Error(io) if a file cannot be removed.
std::vector<std::string> keep_last(const std::string& folder, int64_t k);

} // namespace deepspeed::checkpoint
