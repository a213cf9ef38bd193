// The folder of one experiment, named and filled as HelloDeepSpeed does.
#include "deepspeed/report/experiment.h"

#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/random_name.h"
#include "deepspeed/report/git_state.h"
#include "deepspeed/report/pacific_time.h"
#include "deepspeed/settings/hparams.h"

namespace deepspeed::report {
namespace {

using base::Error;
using base::ExitCode;

std::string join(const std::string& folder, std::string_view name) {
  return folder + "/" + std::string(name);
}

constexpr const char* kCannotMake = "cannot make the folder";

// What create() makes before hparams.json.
bool is_early_name(const std::string& name) {
  return name == ".lock" || name == checkpoint::kTensorBoardFolder ||
      file::is_temporary_name(name);
}

// A folder of its own: nobody's files are in it. False: it was there, and empty
// but for what a killed start had left.
bool make_experiment_folder(const std::string& path) {
  const std::string parent = file::parent_folder(path);
  file::make_folders(parent, kCannotMake);
  if (file::file_system().make_folder(path) == 0) {
    file::sync_folder(parent);
    return true;
  }
  if (errno != EEXIST) {
    throw base::system_error(
        ExitCode::cannot_create,
        "cannot make the experiment folder",
        path,
        errno);
  }
  std::error_code error;
  std::filesystem::directory_iterator entry(path, error);
  for (; !error && entry != std::filesystem::directory_iterator();
       entry.increment(error)) {
    if (const std::string name = entry->path().filename().string();
        !is_early_name(name)) {
      throw Error(
          ExitCode::cannot_create,
          "the folder is there and is no experiment: it holds " + name,
          path,
          "use another --experiment name, or remove the folder");
    }
  }
  if (error) {
    throw base::system_error(
        ExitCode::cannot_create,
        "cannot use as an experiment folder",
        path,
        error.value());
  }
  return false;
}

// After a start that failed: a folder without settings would be nobody's.
void remove_made_folder(const std::string& path) {
  for (const std::string_view name :
       {std::string_view(".lock"),
        checkpoint::kTensorBoardFolder,
        checkpoint::kHparamsFile,
        checkpoint::kGitHashFile,
        checkpoint::kGitDiffFile}) {
    file::file_system().remove(join(path, name));
  }
  file::file_system().remove(path);
}

void write_git_files(const std::string& folder) {
  const std::optional<std::string> hash =
      git_output({"log", "-1", "--format=%H"});
  const std::optional<std::string> diff = git_output({"diff"});
  if (hash) {
    file::write_file_atomically(join(folder, checkpoint::kGitHashFile), *hash);
  }
  if (diff) {
    // Changes that were not committed: there may be secrets among them.
    file::write_file_atomically(
        join(folder, checkpoint::kGitDiffFile), *diff, 0600);
  }
  if (!hash || !diff) {
    const char* missing = hash ? "diff" : diff ? "hash" : "hash and diff";
    base::log_info(
        std::string("the current folder is not in a git repository with a "
                    "commit, or git is missing: the ") +
        missing + " of the code will not be stored");
  }
}

} // namespace

std::string experiment_name(int64_t unix_seconds, std::string_view identifier) {
  const CivilTime time = pacific_time(unix_seconds);
  std::string name = "bert_pretrain";
  for (const int part :
       {time.year, time.month, time.day, time.hour, time.minute, time.second}) {
    name += "." + std::to_string(part);
  }
  return name + "." + std::string(identifier);
}

std::string random_identifier() {
  return file::random_name(8, "abcdefghijklmnopqrstuvwxyz0123456789");
}

std::string new_experiment_path(const std::string& checkpoint_dir) {
  return join(
      checkpoint_dir, experiment_name(std::time(nullptr), random_identifier()));
}

Experiment::Experiment(std::string path)
    : path_(std::move(path)), lock_(lock_run(path_)) {}

Experiment Experiment::create(
    const std::string& folder,
    const settings::Settings& settings) {
  const bool made = make_experiment_folder(folder);
  try {
    Experiment experiment(folder);
    file::make_folders(experiment.events_path(), kCannotMake);
    experiment.save_settings(settings);
    write_git_files(experiment.path());
    return experiment;
  } catch (...) {
    if (made) {
      remove_made_folder(folder);
    }
    throw;
  }
}

std::string Experiment::check_folder(const std::string& folder) {
  std::string path = folder;
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    throw Error(
        ExitCode::no_input,
        "there is no experiment folder of this name",
        path,
        "--load_checkpoint_dir takes a folder that holds hparams.json");
  }
  if (!std::filesystem::exists(join(path, checkpoint::kHparamsFile), ignored)) {
    throw Error(
        ExitCode::no_input,
        "this is not an experiment folder: it has no hparams.json",
        path,
        "--load_checkpoint_dir takes a folder named bert_pretrain.*");
  }
  return path;
}

Experiment Experiment::open(const std::string& folder) {
  const std::string path = check_folder(folder);
  Experiment experiment(path);
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    throw base::system_error(
        ExitCode::cannot_create, "cannot write to the folder", path, errno);
  }
  file::remove_temporary_files(path);
  return experiment;
}

std::string Experiment::hparams_path() const {
  return join(path_, checkpoint::kHparamsFile);
}
std::string Experiment::metrics_path() const {
  return join(path_, checkpoint::kMetricsFile);
}
std::string Experiment::report_path() const {
  return join(path_, checkpoint::kReportFile);
}
std::string Experiment::events_path() const {
  return join(path_, checkpoint::kTensorBoardFolder);
}

void Experiment::save_settings(const settings::Settings& settings) const {
  file::write_file_atomically(
      hparams_path(), settings::to_hparams_file(settings));
}

} // namespace deepspeed::report
