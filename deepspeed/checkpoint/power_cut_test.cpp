// Saves under power cuts and failing disks: what a reader finds.
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/commit.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/file/test_file_system.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

using file::test::Operation;
using file::test::RecordingFileSystem;
using file::test::Tree;
using test::SmallModel;

constexpr int64_t kNothing = -1;
constexpr int64_t kBroken = -2;

// The step of the checkpoint that a reader finds, checksums compared.
int64_t step_found(const std::string& folder, bool newest_whole = false) {
  ZeroOpenOptions options;
  options.newest_whole = newest_whole;
  try {
    const auto found = ZeroCheckpoint::open(folder, "", options);
    const int64_t step = found.global_steps() - 1;
    return found.step("embed.weight") == step ? step : kBroken;
  } catch (const base::Error& error) {
    return error.code() == base::ExitCode::no_input ? kNothing : kBroken;
  }
}

void save(
    int64_t step,
    const std::string& folder,
    const std::string& tag,
    int stage = 1) {
  SmallModel model;
  model.stage = stage;
  model.step = step;
  CommitOptions how;
  how.folder = folder;
  how.tag = tag;
  how.run_id = test::kRunId;
  how.keep_last = 1;
  model.save(how);
}

// Saves into a new folder, beside the last tag, and over one.
class Saves {
 public:
  explicit Saves(int stage, std::function<bool(const Operation&)> lies = {}) {
    files_.lies = std::move(lies);
    const file::FileSystemScope scope(files_);
    const std::string folder = folder_.path() + "/run/checkpoints";
    for (const auto& [step, tag] : std::vector<std::pair<int64_t, const char*>>{
             {3, "one"}, {5, "two"}, {8, "two"}}) {
      save(step, folder, tag, stage);
      done_.push_back({step, files_.operations().size()});
    }
  }

  // Whether the operations that were recorded are all that has happened.
  bool are_recorded() const {
    return file::test::replay(
               files_.operations(), files_.operations().size(), [](size_t) {
                 return false;
               }) == file::test::tree_of(folder_.path());
  }

  // The first power cut that leaves something else than the last checkpoint
  // whose save had ended, or the one that was being saved; "" without one.
  std::string bad_power_cut() const {
    std::set<std::pair<size_t, Tree>> seen;
    size_t ended = 0;
    for (size_t n = 0; n <= files_.operations().size(); ++n) {
      while (ended < done_.size() && done_[ended].operations == n) {
        ++ended;
      }
      for (const Tree& tree : files_.after_power_cut(n)) {
        if (seen.insert({ended, tree}).second && !is_expected(tree, ended)) {
          return described(tree, n);
        }
      }
    }
    EXPECT_GT(seen.size(), 50u);
    return "";
  }

 private:
  bool is_expected(const Tree& tree, size_t ended) const {
    const file::TemporaryFolder copy;
    file::test::make_tree(tree, copy.path());
    // Before the first save has ended there may be a tag and no `latest`: it is
    // taken when asked for, and must be whole.
    const int64_t found =
        step_found(copy.path() + "/run/checkpoints", ended == 0);
    return found == (ended == 0 ? kNothing : done_[ended - 1].step) ||
        (ended < done_.size() && found == done_[ended].step);
  }

  static std::string described(const Tree& tree, size_t n) {
    std::string text = "after operation " + std::to_string(n) + ":";
    for (const auto& [path, bytes] : tree) {
      text += "\n" + path + (bytes ? " " + std::to_string(bytes->size()) : "/");
    }
    return text;
  }

  struct Done {
    int64_t step;
    size_t operations; // until its save had ended
  };
  file::TemporaryFolder folder_;
  RecordingFileSystem files_{folder_.path()};
  std::vector<Done> done_;
};

TEST(PowerCut, LeavesTheOldOrTheNewCheckpointWhole) {
  for (const int stage : {0, 1}) { // without and with zero_to_fp32.py
    const Saves saves(stage);
    EXPECT_TRUE(saves.are_recorded());
    EXPECT_EQ(saves.bad_power_cut(), "") << stage;
  }
}

// What the test above would say of a save that syncs too little.
TEST(PowerCut, ShowsThatBothKindsOfSyncAreNeeded) {
  for (const bool folders : {false, true}) {
    const Saves saves(
        1, [&](const Operation& sync) { return sync.is_folder == folders; });
    EXPECT_NE(saves.bad_power_cut(), "") << folders;
  }
}

// A call that fails, once: an error and the old checkpoint or the new one, or
// no error and the new one.
TEST(Commit, EachCallMayFail) {
  bool has_ended = false;
  for (size_t victim = 0; !has_ended; ++victim) {
    const file::TemporaryFolder folder;
    RecordingFileSystem files(folder.path());
    const file::FileSystemScope scope(files);
    save(3, folder.path(), "one");
    save(5, folder.path(), "two");
    size_t calls = 0;
    files.fault = [&](const Operation&) { return calls++ == victim ? EIO : 0; };
    bool has_failed = false;
    try {
      save(8, folder.path(), "two");
    } catch (const base::Error& error) {
      has_failed = true;
      EXPECT_TRUE(
          error.code() == base::ExitCode::io ||
          error.code() == base::ExitCode::cannot_create)
          << error.what();
    }
    has_ended = calls <= victim;
    const int64_t found = step_found(folder.path());
    EXPECT_TRUE(found == 8 || (has_failed && found == 5)) << victim;
  }
}

// Of step files, the oldest go only when a newer one will stay.
TEST(PowerCut, LeavesAStepFile) {
  const file::TemporaryFolder folder;
  RecordingFileSystem files(folder.path());
  const file::FileSystemScope scope(files);
  const auto write = [&](int64_t step) {
    formats::save_torch_file(
        join(folder.path(), step_checkpoint_name(step)), step);
    keep_last(folder.path(), 1);
  };
  write(1);
  const size_t begin = files.operations().size();
  write(2);
  write(3);
  for (size_t n = begin; n <= files.operations().size(); ++n) {
    for (const Tree& tree : files.after_power_cut(n)) {
      const file::TemporaryFolder copy;
      file::test::make_tree(tree, copy.path());
      EXPECT_NO_THROW(latest_whole_checkpoint(copy.path(), false)) << n;
    }
  }
}

} // namespace
} // namespace deepspeed::checkpoint
