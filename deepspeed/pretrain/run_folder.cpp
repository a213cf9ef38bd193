// Which experiment a run belongs to: a new one, or one that it goes on with.
#include "deepspeed/pretrain/run_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/descriptor.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/report/experiment.h"
#include "deepspeed/settings/hparams.h"

namespace deepspeed::pretrain {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointKind;
using checkpoint::CheckpointPath;

constexpr uint64_t kMostNoteBytes = 1 << 16;
constexpr const char* kNotePrefix = ".restart-";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_restart(const char* counter) {
  const std::string text = variable(counter);
  int64_t count = 0;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count > 0;
}

// Who starts this process again, in words that no other job has.
struct Job {
  std::string name;
  bool restarted = false;
};

// torchrun's agent outlives its workers: it is our parent. Its id may be the
// default one, or be used again for another run. Nothing where /proc does not
// show it, as from a container of our own.
std::optional<std::string> agent() {
  const std::string parent = std::to_string(::getppid());
  std::string stat;
  try {
    stat = file::read_file("/proc/" + parent + "/stat", kMostNoteBytes);
  } catch (const base::Error&) {
    return std::nullopt;
  }
  // Start time, the 22nd field; the second one ends with the last ')'.
  size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) {
    at = stat.find(' ', at + 1);
  }
  const size_t end = at == std::string::npos ? at : stat.find(' ', at + 1);
  return machine::host_name() + " " + parent + " " +
      (at == std::string::npos ? "" : stat.substr(at + 1, end - at - 1));
}

std::vector<Job> jobs() {
  std::vector<Job> found;
  if (const std::string id = variable("TORCHELASTIC_RUN_ID"); !id.empty()) {
    const auto name = id != "none" ? std::optional(id) : agent();
    if (name) {
      found.push_back(
          {"torchrun " + *name, is_restart("TORCHELASTIC_RESTART_COUNT")});
    }
  }
  if (const std::string id = variable("SLURM_JOB_ID"); !id.empty()) {
    found.push_back(
        {"slurm " + variable("SLURM_CLUSTER_NAME") + " " + id,
         is_restart("SLURM_RESTART_COUNT")});
  }
  return found;
}

// One job may train several models, one after the other.
std::string note_path(
    const std::string& folder,
    const Job& job,
    const settings::Settings& settings) {
  const std::string text = job.name + "\n" + settings::to_hparams(settings);
  base::ContentHash hash;
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
  return checkpoint::join(folder, kNotePrefix + hash.hex().substr(0, 16));
}

// The first line of a file; nothing if there is none.
std::optional<std::string> read_note(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || fs::file_size(path, error) == 0) {
    return std::nullopt;
  }
  const std::string text = file::read_file(path, kMostNoteBytes);
  return text.substr(0, text.find('\n'));
}

bool is_experiment(const std::string& folder) {
  std::error_code ignored;
  return fs::exists(
      checkpoint::join(folder, checkpoint::kHparamsFile), ignored);
}

CheckpointKind kind_of(const settings::Settings& settings) {
  return settings.engine.enabled ? CheckpointKind::tags : CheckpointKind::steps;
}

// What the earlier starts of this job have noted, in `folder` or for our own
// launcher; nothing if this is the first start.
std::optional<std::string> noted_folder(
    const std::string& folder,
    const settings::Settings& settings) {
  if (is_restart("DS_RESTART_COUNT")) {
    if (const auto note = read_note(variable("DS_RESUME_FILE"))) {
      return note;
    }
  }
  for (const Job& job : jobs()) {
    if (job.restarted) {
      if (const auto name = read_note(note_path(folder, job, settings))) {
        return checkpoint::join(folder, *name);
      }
    }
  }
  return std::nullopt;
}

bool any_restart() {
  return is_restart("DS_RESTART_COUNT") ||
      is_restart("TORCHELASTIC_RESTART_COUNT") ||
      is_restart("SLURM_RESTART_COUNT");
}

// `path` whether it is an experiment already or not.
RunFolder go_on_or_begin(
    const std::string& path,
    const settings::Settings& settings) {
  RunFolder folder{path, is_experiment(path), {path, "", {}}, {}};
  if (folder.exists) {
    folder.from = checkpoint::find_checkpoint(path);
    checkpoint::require_kind(folder.from, kind_of(settings));
    base::log_info(
        "going on with " + path +
        (folder.loads() ? "" : ": it has no checkpoint yet, step 0 is next"));
  }
  return folder;
}

// The checkpoint that was named is where an earlier start of this job began,
// and that one has saved newer ones.
bool has_gone_on(
    const CheckpointPath& named,
    const settings::Settings& settings) {
  if (!noted_folder(named.folder, settings)) {
    return false;
  }
  if (named.has(CheckpointKind::tags)) {
    return true; // `latest` names the one that it began with, or a newer one
  }
  const auto step = checkpoint::parse_step_checkpoint_name(named.name);
  const auto files = checkpoint::list_step_checkpoints(named.folder);
  return step && !files.empty() && files.back().step > *step;
}

// Our launcher's file, and one in `parent` for each other job.
void add_notes(
    RunFolder& folder,
    const std::string& parent,
    const std::string& text,
    const settings::Settings& settings) {
  if (const std::string file = variable("DS_RESUME_FILE"); !file.empty()) {
    folder.notes.emplace_back(file, folder.path);
  }
  for (const Job& job : jobs()) {
    folder.notes.emplace_back(note_path(parent, job, settings), text);
  }
}

RunFolder load_folder(const settings::Settings& settings) {
  CheckpointPath from =
      checkpoint::find_checkpoint(settings.folders.load_checkpoint_dir);
  checkpoint::require_kind(from, kind_of(settings));
  if (from.is_named() && has_gone_on(from, settings)) {
    base::log_info(
        "a restart: going on with the newest checkpoint of " + from.folder +
        ", not with " + from.name + " again");
    from.name.clear();
  }
  // Opening it, and loading, say what is missing.
  from.kinds = {kind_of(settings)};
  RunFolder folder{from.folder, true, from, {}};
  if (from.is_named()) {
    add_notes(folder, from.folder, ".", settings);
  }
  return folder;
}

} // namespace

RunFolder find_run_folder(const settings::Options& options) {
  const settings::Settings& settings = options.settings;
  const settings::FolderSettings& flags = settings.folders;
  if (!flags.load_checkpoint_dir.empty()) {
    return load_folder(settings);
  }
  if (flags.checkpoint_dir.empty()) {
    return {};
  }
  if (!flags.experiment.empty()) {
    return go_on_or_begin(
        checkpoint::join(flags.checkpoint_dir, flags.experiment), settings);
  }
  RunFolder folder;
  if (const auto noted = noted_folder(flags.checkpoint_dir, settings)) {
    folder = go_on_or_begin(*noted, settings);
  } else {
    if (any_restart()) {
      base::log_info(
          "a restart, but no earlier start of this job and these settings has "
          "noted a folder: a new experiment begins");
    }
    folder.path = report::new_experiment_path(flags.checkpoint_dir);
  }
  add_notes(
      folder,
      flags.checkpoint_dir,
      fs::path(folder.path).filename().string(),
      settings);
  return folder;
}

void write_notes(const RunFolder& folder) {
  for (const auto& [path, text] : folder.notes) {
    if (path == variable("DS_RESUME_FILE")) {
      // In place: the file is the launcher's own, and may be one in memory.
      const file::Descriptor note(
          file::file_system().open(path, O_WRONLY | O_CREAT | O_TRUNC));
      if (!note.is_open() || !file::write_all(note.get(), text)) {
        base::log_warning(
            "cannot write " + path +
            " (DS_RESUME_FILE): a restart by the launcher would start anew");
      }
      continue;
    }
    file::make_folders(file::parent_folder(path), "cannot make the folder");
    file::write_file_atomically(path, text);
  }
}

std::string to_text(const RunFolder& folder) {
  base::Json kinds = base::Json::array();
  for (const CheckpointKind kind : folder.from.kinds) {
    kinds.push_back(kind == CheckpointKind::tags);
  }
  return base::Json::array({folder.path,
                            folder.exists,
                            folder.from.folder,
                            folder.from.name,
                            kinds})
      .dump(-1, ' ', false, base::Json::error_handler_t::ignore);
}

RunFolder run_folder_of(const std::string& text) {
  const base::Json json = base::Json::parse(text);
  RunFolder folder;
  folder.path = json[0];
  folder.exists = json[1];
  folder.from.folder = json[2];
  folder.from.name = json[3];
  for (const bool tags : json[4]) {
    folder.from.kinds.push_back(
        tags ? CheckpointKind::tags : CheckpointKind::steps);
  }
  return folder;
}

} // namespace deepspeed::pretrain
