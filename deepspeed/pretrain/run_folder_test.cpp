// New experiments, named ones, and those that a restart goes on with.
#include "deepspeed/pretrain/run_folder.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::pretrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class RunFolders : public testing::Test {
 protected:
  RunFolders() {
    options_.settings.folders.checkpoint_dir = folder_.path();
  }
  ~RunFolders() override {
    for (const std::string& name : names_) {
      ::unsetenv(name.c_str());
    }
  }

  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    names_.push_back(name);
  }
  void write(const std::string& name, const std::string& text = "") const {
    fs::create_directories(fs::path(folder_.path() + "/" + name).parent_path());
    file::write_file_atomically(folder_.path() + "/" + name, text);
  }

  file::TemporaryFolder folder_;
  settings::Options options_;

 private:
  std::vector<std::string> names_;
};

TEST_F(RunFolders, WithoutAFlagNothingIsWritten) {
  const RunFolder none = find_run_folder({});
  EXPECT_EQ(none.path, "");
  EXPECT_FALSE(none.exists);
  EXPECT_FALSE(none.loads());
}

TEST_F(RunFolders, ANewOneHasANameOfItsOwn) {
  const RunFolder found = find_run_folder(options_);
  EXPECT_THAT(found.path, HasSubstr(folder_.path() + "/bert_pretrain."));
  EXPECT_FALSE(found.exists);
  EXPECT_THAT(found.notes, IsEmpty()); // nobody starts it again
  EXPECT_TRUE(fs::is_empty(folder_.path())); // it only looks
}

TEST_F(RunFolders, ANamedExperimentBeginsOnceAndGoesOn) {
  options_.settings.folders.experiment = "one";
  const std::string path = folder_.path() + "/one";
  RunFolder found = find_run_folder(options_);
  EXPECT_EQ(found.path, path);
  EXPECT_FALSE(found.exists);
  write("one/hparams.json", "{}");
  found = find_run_folder(options_);
  EXPECT_TRUE(found.exists);
  EXPECT_FALSE(found.loads()); // no checkpoint yet
  write("one/checkpoint.iter_10.pt");
  found = find_run_folder(options_);
  EXPECT_TRUE(found.loads());
  EXPECT_EQ(found.from.folder, path);
  options_.settings.engine.enabled = true; // the other program
  EXPECT_THROW(find_run_folder(options_), base::Error);
}

TEST_F(RunFolders, ALoadedOneMustBeThere) {
  options_.settings.folders.load_checkpoint_dir = folder_.path() + "/none";
  EXPECT_THROW(find_run_folder(options_), base::Error);
}

TEST_F(RunFolders, ARestartOfAJobFindsWhatItNoted) {
  set("SLURM_JOB_ID", "17");
  const RunFolder first = find_run_folder(options_);
  ASSERT_THAT(first.notes, SizeIs(1));
  write_notes(first);
  write(fs::path(first.path).filename().string() + "/hparams.json", "{}");
  // Not counted as a restart: it begins anew.
  EXPECT_NE(find_run_folder(options_).path, first.path);
  set("SLURM_RESTART_COUNT", "1");
  const RunFolder second = find_run_folder(options_);
  EXPECT_EQ(second.path, first.path);
  EXPECT_TRUE(second.exists);
  // Other settings are another run of the job; so is another job.
  options_.settings.run.seed += 1;
  EXPECT_NE(find_run_folder(options_).path, first.path);
  options_.settings.run.seed -= 1;
  set("SLURM_JOB_ID", "18");
  EXPECT_NE(find_run_folder(options_).path, first.path);
}

TEST_F(RunFolders, ARestartOfTheLauncherReadsItsFile) {
  write("resume");
  set("DS_RESUME_FILE", folder_.path() + "/resume");
  const RunFolder first = find_run_folder(options_);
  write_notes(first);
  set("DS_RESTART_COUNT", "1");
  EXPECT_EQ(find_run_folder(options_).path, first.path);
}

TEST_F(RunFolders, TravelAsText) {
  RunFolder folder{"/a b/\"c\"", true, {"/a b", "global_step3", {}}, {}};
  folder.from.kinds = {
      checkpoint::CheckpointKind::tags, checkpoint::CheckpointKind::steps};
  folder.notes = {{"note", "of rank 0 alone"}};
  const RunFolder read = run_folder_of(to_text(folder));
  EXPECT_EQ(read.path, folder.path);
  EXPECT_TRUE(read.exists);
  EXPECT_EQ(read.from.folder, folder.from.folder);
  EXPECT_EQ(read.from.name, folder.from.name);
  EXPECT_EQ(read.from.kinds, folder.from.kinds);
  EXPECT_THAT(read.notes, IsEmpty());
}

} // namespace
} // namespace deepspeed::pretrain
