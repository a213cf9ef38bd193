// What a path that is given to a program as a checkpoint is.
#include "deepspeed/checkpoint/checkpoint_path.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

constexpr const char* kSetAsideFolder = "set_aside";

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  return names;
}

bool is_zero_file(const std::string& name) {
  return parse_zero_file_name(name).kind != ZeroFile::Kind::other;
}

bool is_tag_folder(const fs::path& path) {
  std::error_code ignored;
  const auto names = names_in(path);
  return fs::is_directory(path, ignored) &&
      std::any_of(names.begin(), names.end(), is_zero_file);
}

// Without "." and a slash at the end, so that its last part is a name.
fs::path plain(const std::string& path) {
  fs::path clean = fs::path(path).lexically_normal();
  if (!clean.has_filename()) {
    clean = clean.parent_path();
  }
  if (clean.filename() == "." || clean.filename() == "..") {
    clean = fs::canonical(path);
  }
  return clean;
}

bool is_in_experiment(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(
      path.parent_path() / kHparamsFile, ignored); // "" is the current folder
}

// A tag or a file, in the experiment that it belongs to.
CheckpointPath named(fs::path path, CheckpointKind kind) {
  if (const fs::path target = fs::canonical(path);
      !is_in_experiment(path) && is_in_experiment(target)) {
    path = target;
  }
  const std::string folder = path.parent_path().string();
  return {folder.empty() ? "." : folder, path.filename().string(), {kind}};
}

CheckpointPath of_folder(const std::string& path) {
  CheckpointPath found{path, "", {}};
  bool steps = false;
  bool tags = false;
  for (const std::string& name : names_in(path)) {
    steps = steps || parse_step_checkpoint_name(name).has_value();
    tags = tags || name == kLatestFile ||
        (is_tag(name) && is_tag_folder(fs::path(path) / name));
  }
  if (steps) {
    found.kinds.push_back(CheckpointKind::steps);
  }
  if (tags) {
    found.kinds.push_back(CheckpointKind::tags);
  }
  return found;
}

[[noreturn]] void refuse(
    ExitCode code,
    const std::string& what,
    const std::string& where,
    const std::string& hint) {
  throw Error(code, what, where, hint);
}

// A name in FOLDER/set_aside that is not taken.
fs::path place_aside(const fs::path& folder, const std::string& name) {
  const fs::path aside = folder / kSetAsideFolder;
  fs::path place = aside / name;
  for (int i = 2; fs::symlink_status(place).type() != fs::file_type::not_found;
       ++i) {
    place = aside / (name + "." + std::to_string(i));
  }
  return place;
}

std::string move_aside(const fs::path& folder, const std::string& name) {
  file::make_folders(folder / kSetAsideFolder);
  const fs::path from = folder / name;
  const fs::path to = place_aside(folder, name);
  if (file::file_system().rename(from, to) != 0) {
    throw base::system_error(
        ExitCode::io, "cannot move aside", from.string(), errno);
  }
  return "set aside: " + from.string() + " is now " + to.string();
}

std::vector<std::string> newer_files(
    const std::string& folder,
    const std::string& name) {
  std::vector<std::string> newer;
  const auto step = parse_step_checkpoint_name(name);
  for (const StepFile& file : list_step_checkpoints(folder)) {
    if (step && file.step > *step) {
      newer.push_back(step_checkpoint_name(file.step));
    }
  }
  return newer;
}

// Of the tag that `latest` names; nothing if that is none.
std::optional<std::string> latest_or_none(const std::string& folder) {
  try {
    return read_latest(folder);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<std::string> newer_tags(
    const std::string& folder,
    const std::string& name) {
  std::vector<std::string> newer;
  const int64_t step = steps_of_tag(join(folder, name));
  for (const std::string& tag : list_tags(folder)) {
    if (tag != name && steps_of_tag(join(folder, tag)) > step) {
      newer.push_back(tag);
    }
  }
  const auto latest = latest_or_none(folder);
  if (latest && *latest != name && has_tag(folder, *latest) &&
      steps_of_tag(join(folder, *latest)) < 0) {
    newer.push_back(*latest);
  }
  return newer;
}

} // namespace

const char* program_of(CheckpointKind kind) {
  return kind == CheckpointKind::steps ? "train_bert" : "train_bert_ds";
}

bool CheckpointPath::has(CheckpointKind kind) const {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

std::string CheckpointPath::text() const {
  return is_named() ? join(folder, name) : folder;
}

CheckpointPath find_checkpoint(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw base::system_error(
        ExitCode::no_input,
        "cannot read the checkpoint",
        path,
        error ? error.value() : ENOENT);
  }
  const fs::path clean = plain(path);
  if (!fs::is_directory(status)) {
    return is_zero_file(clean.filename().string())
        ? named(
              plain((clean.has_parent_path() ? clean.parent_path() : ".")
                        .string()),
              CheckpointKind::tags)
        : named(clean, CheckpointKind::steps);
  }
  return is_tag_folder(clean) ? named(clean, CheckpointKind::tags)
                              : of_folder(path);
}

CheckpointKind only_kind(const CheckpointPath& path) {
  if (path.kinds.empty()) {
    refuse(
        ExitCode::no_input,
        "no checkpoint in the folder",
        path.folder,
        "give an experiment that has saved one, a tag's folder, or a file");
  }
  if (path.kinds.size() > 1) {
    refuse(
        ExitCode::config,
        "the folder holds checkpoints of train_bert and of train_bert_ds",
        path.folder,
        "name the one that is meant: " +
            join(path.folder, step_checkpoint_name(1000)) + " or " +
            join(path.folder, default_tag(1000)));
  }
  return path.kinds[0];
}

void require_kind(const CheckpointPath& path, CheckpointKind kind) {
  if (path.kinds.empty() || path.has(kind)) {
    return;
  }
  const std::string other = program_of(path.kinds[0]);
  refuse(
      ExitCode::config,
      "a checkpoint of " + other + ", which " + program_of(kind) +
          " does not go on with",
      path.text(),
      "use " + other);
}

std::vector<std::string> set_newer_aside(
    const std::string& folder,
    CheckpointKind kind,
    const std::string& name) {
  const bool tags = kind == CheckpointKind::tags;
  const auto newer =
      tags ? newer_tags(folder, name) : newer_files(folder, name);
  if (tags && latest_or_none(folder) != name && is_tag(name)) {
    // First: at no time does it name nothing.
    file::write_file_atomically(join(folder, kLatestFile), name);
  }
  std::vector<std::string> lines;
  for (const std::string& one : newer) {
    if (one != name) {
      lines.push_back(move_aside(folder, one));
    }
  }
  if (!newer.empty()) {
    file::sync_folder(folder);
  }
  return lines;
}

} // namespace deepspeed::checkpoint
