// Every file name of an experiment and of an exported model, in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/checkpoint/value.h"

namespace deepspeed::checkpoint {

// The experiment folder of HelloDeepSpeed.
inline constexpr std::string_view kHparamsFile = "hparams.json";
inline constexpr std::string_view kGitHashFile = "githash.log";
inline constexpr std::string_view kGitDiffFile = "gitdiff.log";
inline constexpr std::string_view kTensorBoardFolder = "tb_dir";
inline constexpr std::string_view kMetricsFile = "metrics.jsonl";
inline constexpr std::string_view kReportFile = "report.html";
inline constexpr std::string_view kLossCurveFile = "loss_curve.svg";

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
  Value value; // what the file holds
  // One line for each newer file that did not verify, with the reason.
  std::vector<std::string> skipped;
};

// The newest step checkpoint that load_torch_file() accepts. Error(no_input)
// if the folder has none, Error(data) if it has some and none is whole: a run
// never starts again from nothing without being told to.
LatestCheckpoint latest_whole_checkpoint(const std::string& folder);

// Removes step checkpoints older than the newest k, except the newest one that
// can be loaded (which is tried: it is read once), and says which files went.
// Error(usage) if k < 1, Error(io) if a file cannot be removed.
std::vector<std::string> keep_last(const std::string& folder, int64_t k);

} // namespace deepspeed::checkpoint
