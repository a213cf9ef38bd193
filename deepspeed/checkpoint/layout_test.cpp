// The newest whole checkpoint is found, and never deleted.
#include "deepspeed/checkpoint/layout.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

class Folder {
 public:
  const std::string& path() const {
    return folder_.path();
  }
  std::string file(int64_t step) const {
    return join(path(), step_checkpoint_name(step));
  }
  void save(std::initializer_list<int64_t> steps) const {
    for (const int64_t step : steps) {
      formats::save_torch_file(file(step), formats::Value(step));
    }
  }
  // Cuts off the last byte, or flips one.
  void damage(int64_t step, bool cut) const {
    std::string text = file::read_file(file(step), 1 << 20);
    if (cut) {
      text.pop_back();
    } else {
      // In the pickle, which begins at byte 64.
      text[64] = static_cast<char>(text[64] ^ 1);
    }
    file::write_file_atomically(file(step), text);
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    for (const StepFile& file : list_step_checkpoints(path())) {
      steps.push_back(file.step);
    }
    return steps;
  }

 private:
  file::TemporaryFolder folder_;
};

TEST(Layout, StepNames) {
  EXPECT_EQ(step_checkpoint_name(7), "checkpoint.iter_7.pt");
  EXPECT_EQ(parse_step_checkpoint_name("checkpoint.iter_7.pt"), 7);
  EXPECT_EQ(
      parse_step_checkpoint_name("checkpoint.iter_9223372036854775807.pt"),
      INT64_MAX);
  for (const char* name :
       {"checkpoint.iter_.pt",
        "checkpoint.iter_07.pt",
        "checkpoint.iter_-1.pt",
        "checkpoint.iter_7.pt.tmp-1-2",
        "checkpoint.iter_7x.pt",
        "xcheckpoint.iter_7.pt",
        "checkpoint.iter_7",
        "checkpoint.iter_9223372036854775808.pt",
        "",
        "hparams.json"}) {
    EXPECT_EQ(parse_step_checkpoint_name(name), std::nullopt) << name;
  }
}

TEST(Layout, ListsByStepAsNumbers) {
  const Folder folder;
  folder.save({10, 9, 100});
  file::write_file_atomically(
      folder.path() + "/checkpoint.iter_5.pt.tmp-1-0", "");
  file::write_file_atomically(join(folder.path(), kHparamsFile), "{}");
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{9, 10, 100}));
  EXPECT_THROW(list_step_checkpoints(folder.path() + "/no"), base::Error);
}

TEST(Layout, TakesTheNewestWholeOne) {
  const Folder folder;
  folder.save({1, 2, 3, 4});
  EXPECT_EQ(latest_whole_checkpoint(folder.path(), true).file.step, 4);
  folder.damage(4, true);
  folder.damage(3, false);
  const LatestCheckpoint latest = latest_whole_checkpoint(folder.path(), true);
  EXPECT_EQ(latest.file.step, 2);
  EXPECT_EQ(latest.file.path, folder.file(2));
  EXPECT_EQ(*latest.value.get_if<int64_t>(), 2);
  ASSERT_EQ(latest.skipped.size(), 2u);
  EXPECT_TRUE(latest.skipped[0].starts_with(folder.file(4) + ": "));
  EXPECT_EQ(
      latest.skipped[1],
      folder.file(3) +
          ": the bytes of entry checkpoint.iter_3/data.pkl do not match their "
          "checksum");
}

TEST(Layout, NeverTakesAnotherOneUnasked) {
  const Folder folder;
  folder.save({1, 2});
  EXPECT_EQ(latest_whole_checkpoint(folder.path(), false).file.step, 2);
  folder.damage(2, true);
  try {
    latest_whole_checkpoint(folder.path(), false);
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    EXPECT_NE(
        std::string(error.what()).find(folder.file(2)), std::string::npos);
    EXPECT_TRUE(error.hint().starts_with(folder.file(1) + " is the newest"));
  }
}

TEST(Layout, NeverStartsFromNothingSilently) {
  const Folder folder;
  try {
    latest_whole_checkpoint(folder.path(), true);
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::no_input);
  }
  folder.save({1});
  folder.damage(1, true);
  try {
    latest_whole_checkpoint(folder.path(), true);
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
  }
}

TEST(Layout, KeepsTheLast) {
  const Folder folder;
  folder.save({1, 2, 3, 10});
  EXPECT_TRUE(keep_last(folder.path(), 4).empty());
  EXPECT_EQ(
      keep_last(folder.path(), 2),
      (std::vector<std::string>{folder.file(2), folder.file(1)}));
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{3, 10}));
  EXPECT_THROW(keep_last(folder.path(), 0), base::Error);
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{3, 10}));
}

TEST(Layout, KeepsTheNewestWholeOne) {
  const Folder folder;
  folder.save({1, 2, 3, 4});
  folder.damage(4, true);
  folder.damage(3, false);
  EXPECT_EQ(
      keep_last(folder.path(), 1), (std::vector<std::string>{folder.file(1)}));
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{2, 3, 4}));
}

TEST(Layout, Tags) {
  for (const std::string tag : {"a", "global_step12", "1.0-x_y"}) {
    EXPECT_TRUE(is_tag(tag)) << tag;
  }
  for (const std::string tag : {"", ".", "..", "-a", "_a", "a/b", "a b"}) {
    EXPECT_FALSE(is_tag(tag)) << tag;
  }
  EXPECT_FALSE(is_tag(std::string("a\0b", 3)));
  EXPECT_TRUE(is_tag(std::string(128, 'a')));
  EXPECT_FALSE(is_tag(std::string(129, 'a')));
  EXPECT_TRUE(is_tag(default_tag(7)));
}

TEST(Layout, FilesOfDeepSpeed) {
  using Kind = ZeroFile::Kind;
  for (const bool bf16 : {false, true}) {
    const std::string name = shard_states_name(12, bf16);
    EXPECT_EQ(name.starts_with("bf16_"), bf16);
    const ZeroFile file = parse_zero_file_name(name);
    EXPECT_EQ(file.kind, Kind::shard_states);
    EXPECT_EQ(file.rank, 12);
  }
  const auto kind = [](const char* name) {
    return parse_zero_file_name(name).kind;
  };
  EXPECT_EQ(kind("mp_rank_00_model_states.pt"), Kind::model_states);
  EXPECT_EQ(kind("mp_rank_01_model_states.pt"), Kind::model_parallel);
  EXPECT_EQ(
      kind("zero_pp_rank_0_mp_rank_01_optim_states.pt"), Kind::model_parallel);
  EXPECT_EQ(
      kind("zero_pp_rank_0_mp_rank_00_model_states.pt"), Kind::stage3_states);
  EXPECT_EQ(kind("layer_3_expert_0_mp_rank_00_model_states.pt"), Kind::experts);
  EXPECT_EQ(kind("expp_rank_0_mp_rank_00_optim_states.pt"), Kind::experts);
  EXPECT_EQ(kind("zero_pp_rank_x_mp_rank_00_optim_states.pt"), Kind::other);
  EXPECT_EQ(
      kind("zero_pp_rank_99999999999_mp_rank_00_optim_states.pt"), Kind::other);
  EXPECT_EQ(kind("ds_manifest.json"), Kind::other);
  EXPECT_EQ(kind(""), Kind::other);
}

TEST(Layout, PartsOfWeights) {
  EXPECT_EQ(weights_shard_name("pytorch_model.bin", 1, 1), "pytorch_model.bin");
  EXPECT_EQ(
      weights_shard_name("model.safetensors", 2, 10),
      "model-00002-of-00010.safetensors");
}

} // namespace
} // namespace deepspeed::checkpoint
