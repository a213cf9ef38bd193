// Every file name of an experiment and of an exported model, in one place.
#include "deepspeed/checkpoint/layout.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

constexpr std::string_view kStepPrefix = "checkpoint.iter_";
constexpr std::string_view kStepSuffix = ".pt";

constexpr size_t kMaxTagBytes = 128;
constexpr size_t kRunIdDigits = 32;
constexpr std::string_view kBf16Prefix = "bf16_";
constexpr std::string_view kFp16Prefix = "fp16_";
constexpr std::string_view kShardPrefix = "zero_pp_rank_";
constexpr std::string_view kModelPrefix = "mp_rank_";
// Without tensor parallelism there is one part of the model.
constexpr std::string_view kFirstModelPart = "_mp_rank_00";
constexpr std::string_view kModelSuffix = "_model_states.pt";
constexpr std::string_view kShardSuffix = "_optim_states.pt";
constexpr std::string_view kUnfinishedPrefix = ".tmp-";
constexpr std::string_view kTrashPrefix = ".trash-";

// Of ASCII, whatever the locale.
bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
      (c >= '0' && c <= '9');
}

// Loads the checkpoint; returns why it is not whole, or "" if it is.
std::string load(const StepFile& file, formats::Value* value) {
  try {
    *value = formats::load_torch_file(file.path);
    return "";
  } catch (const base::Error& error) {
    return error.what();
  }
}

} // namespace

std::string default_tag(int64_t global_steps) {
  return "global_step" + std::to_string(global_steps);
}

bool is_tag(std::string_view text) {
  return !text.empty() && text.size() <= kMaxTagBytes &&
      is_alphanumeric(text[0]) &&
      std::all_of(text.begin(), text.end(), [](char c) {
        return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
      });
}

bool is_run_id(std::string_view text) {
  return text.size() == kRunIdDigits &&
      text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string shard_states_name(int rank, bool bf16) {
  return std::string(bf16 ? kBf16Prefix : "") + std::string(kShardPrefix) +
      std::to_string(rank) + std::string(kFirstModelPart) +
      std::string(kShardSuffix);
}

ZeroFile parse_zero_file_name(std::string_view name) {
  using Kind = ZeroFile::Kind;
  if (name == kModelStatesFile) {
    return {Kind::model_states, 0};
  }
  const bool is_model = name.ends_with(kModelSuffix);
  if (!is_model && !name.ends_with(kShardSuffix)) {
    return {};
  }
  if (name.starts_with("layer_") || name.starts_with("exp")) {
    return {Kind::experts, 0};
  }
  if (name.starts_with(kModelPrefix)) {
    return {Kind::model_parallel, 0};
  }
  for (const std::string_view prefix : {kBf16Prefix, kFp16Prefix}) {
    if (name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
    }
  }
  if (!name.starts_with(kShardPrefix)) {
    return {};
  }
  if (is_model) {
    return {Kind::stage3_states, 0};
  }
  name.remove_prefix(kShardPrefix.size());
  name.remove_suffix(kShardSuffix.size());
  int rank = 0;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), rank);
  if (error != std::errc() || rank < 0) {
    return {};
  }
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  if (name != kFirstModelPart) {
    return {Kind::model_parallel, rank};
  }
  return {Kind::shard_states, rank};
}

ModelFile parse_model_file_name(std::string_view name) {
  constexpr std::string_view kWeights[] = {
      kModelWeightsFile,
      kTorchWeightsFile,
      kSafetensorsIndexFile,
      kTorchIndexFile,
      "adapter_config.json",
      "flax_model.msgpack",
      "tf_model.h5"};
  constexpr std::string_view kTokenizer[] = {
      kTokenizerFile,
      kTokenizerConfigFile,
      kSpecialTokensFile,
      kVocabFile,
      kMergesFile,
      "added_tokens.json"};
  const auto is_in = [&](const auto& list) {
    return std::find(std::begin(list), std::end(list), name) != std::end(list);
  };
  if (is_in(kTokenizer)) {
    return ModelFile::tokenizer;
  }
  // "model-00002-of-00010.safetensors"
  constexpr std::string_view kPart = "-00000-of-00000";
  std::string whole(name);
  const size_t at = name.find('-');
  if (at != std::string_view::npos && name.size() > at + kPart.size()) {
    std::string part(name.substr(at, kPart.size()));
    std::replace_if(
        part.begin(),
        part.end(),
        [](char c) { return c >= '0' && c <= '9'; },
        '0');
    if (part == kPart) {
      whole.erase(at, kPart.size());
    }
  }
  return is_in(kWeights) || whole == kModelWeightsFile ||
          whole == kTorchWeightsFile
      ? ModelFile::weights
      : ModelFile::other;
}

std::string unfinished_tag_name(std::string_view tag, std::string_view run_id) {
  return std::string(kUnfinishedPrefix) + std::string(tag) + "-" +
      std::string(run_id);
}

std::string trash_tag_name(std::string_view tag, std::string_view run_id) {
  return std::string(kTrashPrefix) + std::string(tag) + "-" +
      std::string(run_id);
}

bool is_unfinished_name(std::string_view name) {
  for (const std::string_view prefix : {kUnfinishedPrefix, kTrashPrefix}) {
    if (name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
      const size_t dash = name.rfind('-');
      return dash != std::string_view::npos && is_tag(name.substr(0, dash)) &&
          is_run_id(name.substr(dash + 1));
    }
  }
  return false;
}

std::string weights_shard_name(std::string_view name, size_t i, size_t count) {
  const size_t dot = name.rfind('.');
  if (count == 1 || dot == std::string_view::npos) {
    return std::string(name);
  }
  char part[64];
  std::snprintf(part, sizeof part, "-%05zu-of-%05zu", i, count);
  return std::string(name.substr(0, dot)) + part +
      std::string(name.substr(dot));
}

std::string join(const std::string& folder, std::string_view name) {
  return (std::filesystem::path(folder) / name).string();
}

std::string step_checkpoint_name(int64_t step) {
  return std::string(kStepPrefix) + std::to_string(step) +
      std::string(kStepSuffix);
}

std::optional<int64_t> parse_step_checkpoint_name(std::string_view name) {
  if (!name.starts_with(kStepPrefix) || !name.ends_with(kStepSuffix) ||
      name.size() <= kStepPrefix.size() + kStepSuffix.size()) {
    return std::nullopt;
  }
  name.remove_prefix(kStepPrefix.size());
  name.remove_suffix(kStepSuffix.size());
  int64_t step = 0;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), step);
  // Only the one spelling: "007" and "-1" are other files.
  if (error != std::errc() || std::to_string(step) != name || step < 0) {
    return std::nullopt;
  }
  return step;
}

std::vector<StepFile> list_step_checkpoints(const std::string& folder) {
  std::vector<StepFile> files;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (const auto step = parse_step_checkpoint_name(name)) {
      files.push_back({*step, join(folder, name)});
    }
  }
  if (error) {
    throw base::system_error(
        base::ExitCode::no_input,
        "cannot read the folder",
        folder,
        error.value());
  }
  std::sort(
      files.begin(), files.end(), [](const StepFile& a, const StepFile& b) {
        return a.step < b.step;
      });
  return files;
}

LatestCheckpoint latest_whole_checkpoint(
    const std::string& folder,
    bool newest_whole) {
  const std::vector<StepFile> files = list_step_checkpoints(folder);
  LatestCheckpoint latest;
  for (size_t i = files.size(); i-- > 0;) {
    const std::string fault = load(files[i], &latest.value);
    if (!fault.empty()) {
      latest.skipped.push_back(files[i].path + ": " + fault);
      continue;
    }
    if (!latest.skipped.empty() && !newest_whole) {
      throw base::Error(
          base::ExitCode::data,
          "the newest checkpoint cannot be used: " + latest.skipped[0],
          folder,
          files[i].path +
              " is the newest that is whole: give this file, or "
              "--newest_whole");
    }
    latest.file = files[i];
    return latest;
  }
  if (files.empty()) {
    throw base::Error(
        base::ExitCode::no_input,
        "no " + std::string(kStepPrefix) + "N" + std::string(kStepSuffix) +
            " in the folder",
        folder,
        "give the folder of an experiment that has saved a checkpoint");
  }
  throw base::Error(
      base::ExitCode::data,
      "none of the " + std::to_string(files.size()) +
          " checkpoints is whole; the newest: " + latest.skipped[0],
      folder,
      "start a new experiment, or put back a copy of a checkpoint");
}

std::vector<std::string> keep_last(const std::string& folder, int64_t k) {
  if (k < 1) {
    throw base::Error(
        base::ExitCode::usage,
        "cannot keep the last " + std::to_string(k) + " checkpoints",
        "",
        "keep at least 1");
  }
  const std::vector<StepFile> files = list_step_checkpoints(folder);
  const int64_t count = static_cast<int64_t>(files.size());
  std::vector<std::string> removed;
  if (count <= k) {
    return removed;
  }
  // Until a whole one is seen among the newer ones, nothing may go.
  bool safe = false;
  for (int64_t i = count - 1; i >= 0; --i) {
    const StepFile& file = files[static_cast<size_t>(i)];
    if (!safe) {
      formats::Value unused;
      safe = load(file, &unused).empty();
    } else if (i < count - k) {
      if (file::file_system().remove(file.path) != 0 && errno != ENOENT) {
        throw base::system_error(
            base::ExitCode::io, "cannot remove", file.path, errno);
      }
      removed.push_back(file.path);
    }
  }
  if (!removed.empty()) {
    file::sync_folder(folder);
  }
  return removed;
}

} // namespace deepspeed::checkpoint
