// What a path that is given to a program as a checkpoint is.
#include "deepspeed/checkpoint/checkpoint_path.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <functional>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// DIR/steps and DIR/tags are experiments with checkpoints of steps 3 and 6.
class CheckpointPaths : public ::testing::Test {
 protected:
  CheckpointPaths() {
    for (const char* name : {"steps", "tags"}) {
      fs::create_directory(at(name));
      test::write_all(at(name) + "/hparams.json", "{}");
    }
    for (const int64_t step : {3, 6}) {
      formats::save_torch_file(
          at("steps/" + step_checkpoint_name(step)), formats::Value(step));
      test::SmallModel model;
      model.step = step - 1; // it counts one step more
      model.save(at("tags"), default_tag(step));
    }
  }

  std::string at(const std::string& name) const {
    return folder_.path() + "/" + name;
  }

  // FOLDER, NAME and kind of a path.
  void expect(
      const std::string& path,
      const std::string& folder,
      const std::string& name,
      CheckpointKind kind) {
    const CheckpointPath found = find_checkpoint(path);
    EXPECT_EQ(found.folder, folder) << path;
    EXPECT_EQ(found.name, name) << path;
    EXPECT_THAT(found.kinds, ElementsAre(kind)) << path;
  }

  ExitCode code_of(const std::function<void()>& part) {
    try {
      part();
      return ExitCode::ok;
    } catch (const base::Error& error) {
      return error.code();
    }
  }

  file::TemporaryFolder folder_;
};

TEST_F(CheckpointPaths, ExperimentsTagsAndFiles) {
  constexpr auto steps = CheckpointKind::steps;
  constexpr auto tags = CheckpointKind::tags;
  expect(at("steps"), at("steps"), "", steps);
  expect(at("tags"), at("tags"), "", tags);
  fs::remove(at("tags/latest"));
  expect(at("tags"), at("tags"), "", tags);
  const std::string file = at("steps/checkpoint.iter_3.pt");
  expect(file, at("steps"), "checkpoint.iter_3.pt", steps);
  for (const char* path :
       {"tags/global_step3",
        "tags/global_step3/",
        "tags/../tags/global_step3/.",
        "tags/global_step3/mp_rank_00_model_states.pt"}) {
    expect(at(path), at("tags"), "global_step3", tags);
  }
  fs::rename(at("tags/global_step3"), at("tags/best one"));
  expect(at("tags/best one"), at("tags"), "best one", tags);
  fs::rename(file, at("steps/best.pt"));
  expect(at("steps/best.pt"), at("steps"), "best.pt", steps);
  EXPECT_EQ(
      code_of([&] { find_checkpoint(at("nowhere")); }), ExitCode::no_input);
}

TEST_F(CheckpointPaths, NamesWithoutAFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(at("tags"));
  expect("global_step3", ".", "global_step3", CheckpointKind::tags);
  fs::current_path(at("tags/global_step3"));
  expect(".", fs::canonical(at("tags")), "global_step3", CheckpointKind::tags);
  fs::current_path(before);
}

// A link belongs to where it lies if that is an experiment, else to its target.
TEST_F(CheckpointPaths, Links) {
  fs::create_symlink("global_step3", at("tags/best"));
  expect(at("tags/best"), at("tags"), "best", CheckpointKind::tags);
  fs::create_symlink(at("tags/global_step3"), at("far"));
  expect(
      at("far"),
      fs::canonical(at("tags")),
      "global_step3",
      CheckpointKind::tags);
}

TEST_F(CheckpointPaths, OneKindOrAnError) {
  const auto tags = find_checkpoint(at("tags"));
  EXPECT_EQ(only_kind(tags), CheckpointKind::tags);
  EXPECT_NO_THROW(require_kind(tags, CheckpointKind::tags));
  EXPECT_EQ(
      code_of([&] { require_kind(tags, CheckpointKind::steps); }),
      ExitCode::config);
  fs::create_directory(at("empty"));
  const auto empty = find_checkpoint(at("empty"));
  EXPECT_EQ(code_of([&] { only_kind(empty); }), ExitCode::no_input);
  fs::copy_file(
      at("steps/checkpoint.iter_3.pt"), at("tags/checkpoint.iter_3.pt"));
  const auto both = find_checkpoint(at("tags"));
  EXPECT_EQ(code_of([&] { only_kind(both); }), ExitCode::config);
  EXPECT_NO_THROW(require_kind(both, CheckpointKind::steps));
}

TEST_F(CheckpointPaths, OpensTheFolderOfATag) {
  EXPECT_EQ(ZeroCheckpoint::open(at("tags/global_step3")).global_steps(), 3);
  EXPECT_EQ(
      ZeroCheckpoint::open(at("tags/global_step3"), "global_step3").tag(),
      "global_step3");
  EXPECT_EQ(
      code_of([&] { ZeroCheckpoint::open(at("tags/global_step3"), "other"); }),
      ExitCode::usage);
  EXPECT_EQ(
      code_of([&] { ZeroCheckpoint::open(at("steps")); }), ExitCode::config);
}

TEST_F(CheckpointPaths, NewerFilesAreSetAside) {
  const std::string name = step_checkpoint_name(3);
  for (int round = 0; round < 2; ++round) {
    const auto lines =
        set_newer_aside(at("steps"), CheckpointKind::steps, name);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_THAT(
        lines[0], HasSubstr(at("steps/set_aside/checkpoint.iter_6.pt")));
    EXPECT_EQ(latest_whole_checkpoint(at("steps"), false).file.step, 3);
    formats::save_torch_file(
        at("steps/checkpoint.iter_6.pt"), formats::Value(round));
  }
  EXPECT_TRUE(fs::exists(at("steps/set_aside/checkpoint.iter_6.pt.2")));
}

TEST_F(CheckpointPaths, NewerTagsAreSetAside) {
  constexpr auto tags = CheckpointKind::tags;
  EXPECT_THAT(set_newer_aside(at("tags"), tags, "global_step6"), IsEmpty());
  EXPECT_EQ(set_newer_aside(at("tags"), tags, "global_step3").size(), 1u);
  EXPECT_EQ(read_latest(at("tags")), "global_step3");
  EXPECT_THAT(list_tags(at("tags")), ElementsAre("global_step3"));
  EXPECT_EQ(
      ZeroCheckpoint::open(at("tags/set_aside/global_step6")).global_steps(),
      6);
  // What `latest` names, and cannot be read.
  fs::create_directory(at("tags/torn"));
  test::write_all(at("tags/latest"), "torn");
  EXPECT_EQ(set_newer_aside(at("tags"), tags, "global_step3").size(), 1u);
  EXPECT_EQ(read_latest(at("tags")), "global_step3");
}

} // namespace
} // namespace deepspeed::checkpoint
