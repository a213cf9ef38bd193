// Publishing a checkpoint of several ranks.
#include "deepspeed/checkpoint/commit.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/checkpoint/zero_script.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

void rename_or_throw(const std::string& from, const std::string& to) {
  if (file::file_system().rename(from, to) != 0) {
    throw base::system_error(ExitCode::io, "cannot rename", from, errno);
  }
}

void check_space(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = file::file_system().space(folder, error);
  const uint64_t needed = bytes + bytes / 10;
  // Some file systems do not know: all zeros.
  if (!error && space.capacity > 0 && space.available < needed) {
    throw Error(
        ExitCode::io,
        "a checkpoint needs " + std::to_string(needed) + " bytes, " +
            std::to_string(space.available) + " are free",
        folder,
        "make room, or save to another disk");
  }
}

// Our tags from `newest` on, by falling step. What is newer does not belong to
// this line of training, and what goes under another name than it was saved
// with is somebody's own: they neither count nor go.
std::vector<std::string> committed_tags(
    const std::string& folder,
    const std::string& newest) {
  std::vector<std::string> tags = list_tags(folder);
  tags.erase(tags.begin(), std::find(tags.begin(), tags.end(), newest));
  std::erase_if(tags, [&](const std::string& tag) {
    const auto manifest = committed_manifest(join(folder, tag));
    return !manifest || manifest->tag != tag;
  });
  return tags;
}

} // namespace

CheckpointCommit::CheckpointCommit(CommitOptions options)
    : options_(std::move(options)) {
  if (!is_tag(options_.tag)) {
    throw Error(
        ExitCode::usage,
        "'" + options_.tag + "' is not the name of a tag",
        options_.folder,
        "a tag has letters, digits, '.', '_' and '-', at most 128");
  }
  if (!is_run_id(options_.run_id) || options_.keep_last < 0) {
    throw std::invalid_argument("not a run id, or keep_last negative");
  }
  temporary_ =
      join(options_.folder, unfinished_tag_name(options_.tag, options_.run_id));
}

void CheckpointCommit::begin(uint64_t bytes) {
  file::make_folders(options_.folder);
  check_space(options_.folder, bytes);
  // What an earlier attempt of this run left.
  abandon();
  file::make_folders(temporary_);
}

FileRecord CheckpointCommit::add(
    const std::string& name,
    const formats::Value& value) {
  const formats::WrittenFile file =
      formats::save_torch_file(join(temporary_, name), value);
  return {name, file.size, file.hash};
}

FileRecord CheckpointCommit::add_text(
    const std::string& name,
    const std::string& text) {
  base::ContentHash hash;
  file::AtomicFile file(join(temporary_, name), &hash);
  file.write(text);
  file.commit();
  return {name, file.size(), hash.hex()};
}

void CheckpointCommit::step(const char* name) const {
  if (options_.before_step) {
    options_.before_step(name);
  }
}

void CheckpointCommit::replace_tag() const {
  const std::string tag = join(options_.folder, options_.tag);
  const std::string trash =
      join(options_.folder, trash_tag_name(options_.tag, options_.run_id));
  step("rename");
  if (!fs::exists(tag)) {
    rename_or_throw(temporary_, tag);
  } else if (file::file_system().exchange(temporary_, tag) == 0) {
    step("move the old tag away");
    rename_or_throw(temporary_, trash);
  } else {
    rename_or_throw(tag, trash);
    step("rename after the old tag is gone");
    rename_or_throw(temporary_, tag);
  }
  step("sync the folder");
  file::sync_folder(options_.folder);
}

std::vector<std::string> CheckpointCommit::rotate() const {
  std::vector<std::string> lines;
  if (options_.keep_last == 0) {
    return lines;
  }
  const std::vector<std::string> tags =
      committed_tags(options_.folder, options_.tag);
  std::optional<std::string> latest;
  try {
    latest = read_latest(options_.folder);
  } catch (const Error&) {
    // It names nothing that could be kept.
  }
  int64_t kept = 0;
  for (const std::string& tag : tags) {
    if (tag == options_.tag || tag == latest || kept < options_.keep_last) {
      ++kept;
      continue;
    }
    const std::string path = join(options_.folder, tag);
    const std::string trash =
        join(options_.folder, trash_tag_name(tag, options_.run_id));
    step("rotate");
    bool gone = file::file_system().rename(path, trash) == 0;
    if (gone) {
      step("delete");
      gone = file::file_system().remove_tree(trash) == 0;
    }
    lines.push_back(
        gone ? "removed " + path
             : "cannot remove " + path + ": " + std::strerror(errno));
  }
  return lines;
}

std::vector<std::string> CheckpointCommit::publish(const Manifest& manifest) {
  step("manifest");
  file::write_file_atomically(
      join(temporary_, kManifestFile), manifest_text(manifest));
  file::sync_folder(temporary_);
  replace_tag();
  if (manifest.stage > 0) {
    step("script");
    const std::string script = join(options_.folder, kZeroScriptFile);
    file::write_file_atomically(script, zero_to_fp32_script());
    file::file_system().set_mode(script, 0755);
  }
  if (options_.write_latest) {
    step("latest");
    file::write_file_atomically(
        join(options_.folder, kLatestFile), options_.tag);
  }
  file::file_system().remove_tree(
      join(options_.folder, trash_tag_name(options_.tag, options_.run_id)));
  return rotate();
}

void CheckpointCommit::abandon() noexcept {
  file::file_system().remove_tree(temporary_);
}

void sweep_unfinished(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (is_unfinished_name(entry.path().filename().string()) &&
        fs::is_directory(entry.symlink_status())) {
      file::file_system().remove_tree(entry.path());
    }
  }
}

} // namespace deepspeed::checkpoint
