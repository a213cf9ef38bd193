// Publishing: crashes at each step, replaced tags, rotation, full disks.
#include "deepspeed/checkpoint/commit.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/checkpoint/zero_script.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::SmallModel;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

CommitOptions options_for(const std::string& folder, const std::string& tag) {
  CommitOptions options;
  options.folder = folder;
  options.tag = tag;
  options.run_id = test::kRunId;
  return options;
}

std::vector<std::string> unfinished(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (is_unfinished_name(entry.path().filename().string())) {
      names.push_back(entry.path().filename().string());
    }
  }
  return names;
}

// The steps that publish() goes through.
std::vector<std::string> steps_of(const SmallModel& model, CommitOptions how) {
  std::vector<std::string> steps;
  how.before_step = [&](const char* step) { steps.push_back(step); };
  model.save(how);
  return steps;
}

TEST(Commit, LeavesFilesScriptAndLatest) {
  file::TemporaryFolder folder;
  SmallModel().save(folder.path(), "global_step8");
  EXPECT_EQ(read_latest(folder.path()), "global_step8");
  // As Python writes it: no newline.
  EXPECT_EQ(test::read_all(folder.path() + "/latest"), "global_step8");
  EXPECT_EQ(
      test::read_all(folder.path() + "/zero_to_fp32.py"),
      zero_to_fp32_script());
  struct stat info {};
  ASSERT_EQ(::stat((folder.path() + "/zero_to_fp32.py").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0111, 0111u);
  std::set<std::string> names;
  for (const auto& e :
       fs::directory_iterator(folder.path() + "/global_step8")) {
    names.insert(e.path().filename().string());
  }
  EXPECT_THAT(
      names,
      ElementsAre(
          "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
          "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
          "ds_manifest.json",
          "mp_rank_00_model_states.pt"));
  EXPECT_THAT(unfinished(folder.path()), IsEmpty());
}

// The process ends at each step in turn: the old checkpoint or the new one is
// there, whole, and the next save goes through.
TEST(Commit, AKillAtAnyStepLeavesTheOldOrTheNewCheckpoint) {
  SmallModel old_model;
  old_model.step = 3;
  SmallModel new_model;
  new_model.step = 9;
  for (const std::string new_tag : {"new", "old"}) { // beside it, or over it
    file::TemporaryFolder trial;
    old_model.save(trial.path(), "old");
    CommitOptions how = options_for(trial.path(), new_tag);
    how.keep_last = 1;
    const size_t count = steps_of(new_model, how).size();
    ASSERT_GE(count, 5u);
    for (size_t victim = 0; victim < count; ++victim) {
      file::TemporaryFolder folder;
      old_model.save(folder.path(), "old");
      const pid_t child = ::fork();
      if (child == 0) {
        CommitOptions doomed = options_for(folder.path(), new_tag);
        doomed.keep_last = 1;
        size_t at = 0;
        doomed.before_step = [&](const char*) {
          if (at++ == victim) {
            ::_exit(137);
          }
        };
        new_model.save(doomed);
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_EQ(WEXITSTATUS(status), 137) << victim;
      const auto found = ZeroCheckpoint::open(folder.path());
      const int64_t steps = found.global_steps();
      EXPECT_TRUE(steps == 4 || steps == 10) << victim;
      float value = 0;
      found.read_fp32("embed.weight", 3, 4, &value);
      EXPECT_EQ(value, SmallModel::value("fp32", 0, 3));
      EXPECT_EQ(found.step("embed.weight"), steps - 1) << "a mix";

      sweep_unfinished(folder.path());
      EXPECT_THAT(unfinished(folder.path()), IsEmpty());
      EXPECT_EQ(ZeroCheckpoint::open(folder.path()).global_steps(), steps);
      new_model.save(folder.path(), new_tag);
      EXPECT_EQ(ZeroCheckpoint::open(folder.path()).global_steps(), 10);
    }
  }
}

TEST(Commit, AbandonedAndFailedOnesLeaveTheOldOne) {
  file::TemporaryFolder folder;
  SmallModel().save(folder.path(), "old");
  CheckpointCommit commit(options_for(folder.path(), "new"));
  commit.begin(1);
  commit.add_text("notes.txt", "x");
  EXPECT_EQ(unfinished(folder.path()).size(), 1u);
  commit.abandon();
  EXPECT_THAT(unfinished(folder.path()), IsEmpty());
  EXPECT_THAT(list_tags(folder.path()), ElementsAre("old"));
}

TEST(Commit, KeepsTheLastAndNothingOfPython) {
  file::TemporaryFolder folder;
  SmallModel model;
  model.save(folder.path(), "python");
  fs::remove(folder.path() + "/python/ds_manifest.json");
  for (int64_t step = 10; step < 14; ++step) {
    model.step = step;
    CommitOptions how = options_for(folder.path(), default_tag(step));
    how.keep_last = 2;
    model.save(how);
    EXPECT_EQ(ZeroCheckpoint::open(folder.path()).tag(), how.tag);
  }
  EXPECT_THAT(
      list_tags(folder.path()),
      ElementsAre("global_step13", "global_step12", "python"));
  EXPECT_THAT(unfinished(folder.path()), IsEmpty());
}

// An older run that is continued: the newest step of the folder is not ours.
TEST(Commit, TheTagJustWrittenIsNeverRotatedAway) {
  file::TemporaryFolder folder;
  SmallModel model;
  model.step = 100;
  model.save(folder.path(), "far");
  model.step = 5;
  CommitOptions how = options_for(folder.path(), "near");
  how.keep_last = 1;
  model.save(how);
  EXPECT_EQ(ZeroCheckpoint::open(folder.path()).tag(), "near");
}

// Of another line of training: they neither count nor go.
TEST(Commit, NewerTagsAreNotRotated) {
  file::TemporaryFolder folder;
  SmallModel model;
  for (const auto& [step, tag] : std::vector<std::pair<int64_t, std::string>>{
           {100, "far"}, {3, "first"}, {5, "second"}, {7, "third"}}) {
    model.step = step;
    CommitOptions how = options_for(folder.path(), tag);
    how.keep_last = 2;
    model.save(how);
  }
  EXPECT_THAT(list_tags(folder.path()), ElementsAre("far", "third", "second"));
}

// Steps 1 to 3, of which the last stays; `after_first` comes before the others.
void save_three(
    const std::string& folder,
    const std::function<void()>& after_first) {
  SmallModel model;
  for (int64_t step = 1; step < 4; ++step) {
    model.step = step;
    CommitOptions how = options_for(folder, default_tag(step));
    how.keep_last = 1;
    model.save(how);
    if (step == 1) {
      after_first();
    }
  }
}

// Python saved over one of ours: it is not ours to remove any more.
TEST(Commit, ATagThatPythonReplacedStays) {
  file::TemporaryFolder folder;
  save_three(folder.path(), [&] {
    const std::string path =
        folder.path() + "/global_step1/mp_rank_00_model_states.pt";
    formats::Value value = formats::load_torch_file(path);
    value.set("more", std::string(1000, 'x'));
    formats::save_torch_file(path, value);
  });
  EXPECT_THAT(
      list_tags(folder.path()), ElementsAre("global_step3", "global_step1"));
}

// Somebody gave it a name of its own, or made a copy: to keep it.
TEST(Commit, ATagUnderAnotherNameStays) {
  file::TemporaryFolder folder;
  save_three(folder.path(), [&] {
    fs::copy(folder.path() + "/global_step1", folder.path() + "/best");
  });
  EXPECT_THAT(list_tags(folder.path()), ElementsAre("global_step3", "best"));
}

TEST(Commit, SweepsWhatIsOursAlone) {
  file::TemporaryFolder folder;
  const std::string ours = unfinished_tag_name("global_step-1", test::kRunId);
  const std::string trash = trash_tag_name("t", test::kRunId);
  const std::vector<std::string> users = {
      ".tmp-notes",
      ".tmp-t-0123",
      ".trash-",
      std::string(".tmp-") + test::kRunId,
      std::string(".tmp-a b-") + test::kRunId,
      "my.tmp-1-2"};
  for (const std::string& name : {ours, trash}) {
    fs::create_directories(folder.path() + "/" + name + "/below");
  }
  for (const std::string& name : users) {
    fs::create_directories(folder.path() + "/" + name);
  }
  const std::string file =
      folder.path() + "/" + unfinished_tag_name("file", test::kRunId);
  test::write_all(file, "not a folder");
  sweep_unfinished(folder.path());
  for (const std::string& name : users) {
    EXPECT_TRUE(fs::exists(folder.path() + "/" + name)) << name;
  }
  EXPECT_TRUE(fs::exists(file));
  EXPECT_FALSE(fs::exists(folder.path() + "/" + ours));
  EXPECT_FALSE(fs::exists(folder.path() + "/" + trash));
}

TEST(Commit, NamesAreChecked) {
  for (const std::string tag :
       {"", "../x", "/etc", "a/b", "-x", ".x", "a b", "a\n"}) {
    EXPECT_THROW(CheckpointCommit(options_for("f", tag)), base::Error) << tag;
  }
  EXPECT_THROW(
      CheckpointCommit(options_for("f", std::string(129, 'a'))), base::Error);
  EXPECT_NO_THROW(CheckpointCommit(options_for("f", std::string(128, 'a'))));
}

TEST(Commit, AsksForSpaceFirst) {
  file::TemporaryFolder folder;
  CheckpointCommit commit(options_for(folder.path(), "t"));
  try {
    commit.begin(uint64_t{1} << 60);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::io);
    EXPECT_THAT(error.what(), HasSubstr("1268213655067531673 bytes"));
    EXPECT_THAT(error.what(), HasSubstr("are free"));
  }
  EXPECT_THAT(unfinished(folder.path()), IsEmpty());
}

TEST(Commit, AFolderThatCannotBeMade) {
  file::TemporaryFolder folder;
  test::write_all(folder.path() + "/file", "x");
  CheckpointCommit commit(options_for(folder.path() + "/file", "t"));
  try {
    commit.begin(1);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::cannot_create);
  }
}

} // namespace
} // namespace deepspeed::checkpoint
