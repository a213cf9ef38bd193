// What must not pass for a checkpoint, and what is used instead.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using test::SmallModel;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kShard0 = "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt";
const std::string kShard1 = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt";
const std::string kModel = "mp_rank_00_model_states.pt";

ExitCode code_of(const std::string& folder, const std::string& tag = "") {
  try {
    ZeroCheckpoint::open(folder, tag);
    return ExitCode::ok;
  } catch (const base::Error& error) {
    return error.code();
  }
}

// Tags "old" (step 4) and "new" (step 10), which `latest` names.
class ZeroDamage : public ::testing::Test {
 protected:
  ZeroDamage() {
    SmallModel model;
    model.step = 3;
    model.save(folder_.path(), "old");
    model.step = 9;
    model.save(folder_.path(), "new");
  }

  std::string path(const std::string& name) const {
    return folder_.path() + "/new/" + name;
  }
  // As if Python had written the tag.
  void forget_manifest(const std::string& tag) {
    fs::remove(folder_.path() + "/" + tag + "/ds_manifest.json");
  }

  // The error for the tag "new".
  void expect_refused(const std::string& what, const std::string& where) {
    try {
      ZeroCheckpoint::open(folder_.path(), "new");
      ADD_FAILURE() << "not refused: " << what;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(what));
      EXPECT_THAT(error.where(), HasSubstr(where));
    }
    // Without a tag: the older one is named, and taken if that is asked for.
    try {
      ZeroCheckpoint::open(folder_.path());
      ADD_FAILURE() << "another one is taken";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      EXPECT_THAT(error.what(), HasSubstr(what));
      EXPECT_THAT(error.hint(), HasSubstr(folder_.path() + "/old (step 4)"));
    }
    const auto checkpoint = open_newest();
    EXPECT_EQ(checkpoint.tag(), "old");
    ASSERT_EQ(checkpoint.skipped().size(), 1u);
    EXPECT_THAT(checkpoint.skipped()[0], HasSubstr(what));
  }

  ZeroCheckpoint open_newest() {
    ZeroOpenOptions options;
    options.newest_whole = true;
    return ZeroCheckpoint::open(folder_.path(), "", options);
  }

  // Takes the place of a file of the tag "new".
  void replace(const std::string& name, const std::string& from) {
    fs::copy_file(
        folder_.path() + "/" + from + "/" + name,
        path(name),
        fs::copy_options::overwrite_existing);
  }

  file::TemporaryFolder folder_;
};

TEST_F(ZeroDamage, TruncatedFiles) {
  for (const std::string& name : {kModel, kShard0, kShard1}) {
    const std::string whole = test::read_all(path(name));
    for (const size_t size :
         {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 1}) {
      test::write_all(path(name), whole.substr(0, size));
      expect_refused(
          "the file has " + std::to_string(size) +
              " bytes, the manifest says " + std::to_string(whole.size()),
          name);
    }
    test::write_all(path(name), whole);
  }
  EXPECT_EQ(ZeroCheckpoint::open(folder_.path()).tag(), "new");
}

TEST_F(ZeroDamage, TruncatedFilesWithoutManifest) {
  forget_manifest("new");
  const std::string whole = test::read_all(path(kShard1));
  for (const size_t size :
       {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 1}) {
    test::write_all(path(kShard1), whole.substr(0, size));
    expect_refused("", kShard1);
  }
}

// Refused, or seen in bytes that say nothing.
TEST_F(ZeroDamage, FlippedBits) {
  size_t refused = 0;
  size_t tried = 0;
  for (const std::string& name : {kModel, kShard0}) {
    const std::string whole = test::read_all(path(name));
    for (size_t at = 3; at < whole.size(); at += 97, ++tried) {
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
      test::write_all(path(name), flipped);
      try {
        const auto checkpoint = ZeroCheckpoint::open(folder_.path(), "new");
        EXPECT_EQ(checkpoint.notes().size(), 1u);
        float value = 0;
        checkpoint.read_fp32("embed.weight", 2, 3, &value);
        EXPECT_EQ(value, SmallModel::value("fp32", 0, 2)) << at;
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), ExitCode::data);
        EXPECT_THAT(error.what(), HasSubstr("do not match the hash"));
        ++refused;
      }
    }
    test::write_all(path(name), whole);
  }
  EXPECT_GT(refused, tried / 3);
}

// CRC-32 covers pickle and tensors; flips elsewhere are seen or harmless.
TEST_F(ZeroDamage, FlippedBitsWithoutManifest) {
  forget_manifest("new");
  const std::string whole = test::read_all(path(kShard0));
  size_t refused = 0;
  size_t tried = 0;
  for (size_t at = 1; at < whole.size(); at += 61, ++tried) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    test::write_all(path(kShard0), flipped);
    try {
      const auto checkpoint = ZeroCheckpoint::open(folder_.path(), "new");
      float value = 0;
      checkpoint.read_fp32("embed.weight", 2, 3, &value);
      EXPECT_EQ(value, SmallModel::value("fp32", 0, 2)) << at;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), ExitCode::data);
      ++refused;
    }
  }
  EXPECT_GT(refused, tried / 3);
}

TEST_F(ZeroDamage, MissingFiles) {
  fs::rename(path(kShard1), folder_.path() + "/aside");
  expect_refused("missing: " + kShard1, "/new");
  forget_manifest("new");
  expect_refused("written by 2 ranks", "/new");
  fs::rename(path(kShard0), path(kShard1));
  expect_refused("the shards of ranks 0 are missing", "/new");
  fs::remove(path(kShard1));
  expect_refused("the shards of all 2 ranks are missing", "/new");
}

TEST_F(ZeroDamage, ForeignShards) {
  const std::string extra = "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt";
  fs::copy_file(path(kShard1), path(extra));
  expect_refused(extra + " does not belong", "/new");
  forget_manifest("new");
  expect_refused("there are 3 shards", "/new");
  fs::remove(path(extra));
  fs::copy_file(
      path(kShard1), path("zero_pp_rank_1_mp_rank_00_optim_states.pt"));
  expect_refused("two shards of rank 1", "/new");
}

TEST_F(ZeroDamage, AShardOfAnotherStep) {
  replace(kShard1, "old");
  expect_refused("differs from shard 0 in the step: 3 and 9", kShard1);
  forget_manifest("new");
  expect_refused("differs from shard 0 in the step: 3 and 9", kShard1);
}

TEST_F(ZeroDamage, AModelFileOfAnotherStep) {
  replace(kModel, "old");
  expect_refused(
      "the model file is of step 4, the shards have made 9 updates", "/new");
}

// A manifest that is not that of the files does not speak for them: they do.
TEST_F(ZeroDamage, FilesBesideAnotherManifest) {
  const auto expect_step = [&](int64_t steps, const std::string& note) {
    const auto checkpoint = ZeroCheckpoint::open(folder_.path());
    EXPECT_EQ(checkpoint.tag(), "new");
    EXPECT_EQ(checkpoint.global_steps(), steps);
    EXPECT_TRUE(checkpoint.manifest().is_null());
    ASSERT_EQ(checkpoint.notes().size(), 1u);
    EXPECT_THAT(
        checkpoint.notes()[0], HasSubstr("the manifest was passed over"));
    EXPECT_THAT(checkpoint.notes()[0], HasSubstr(note));
  };
  // Python trains on and saves into a tag of ours.
  SmallModel model;
  model.step = 20;
  model.save(folder_.path(), "later");
  for (const std::string& name : {kModel, kShard0, kShard1}) {
    replace(name, "later");
  }
  fs::remove_all(folder_.path() + "/later");
  test::write_all(folder_.path() + "/latest", "new");
  expect_step(21, "do not match the hash");
  EXPECT_THAT(list_tags(folder_.path()), ElementsAre("new", "old"));
  EXPECT_FALSE(committed_manifest(folder_.path() + "/new.pt"));
  for (const std::string text : {"{}", "", "\xff"}) {
    test::write_all(path("ds_manifest.json"), text);
    expect_step(21, "not a whole manifest");
    EXPECT_FALSE(committed_manifest(folder_.path() + "/new"));
  }
  fs::remove(path("ds_manifest.json"));
  fs::create_symlink("ds_manifest.json", path("ds_manifest.json"));
  expect_step(21, "not a regular file");
  fs::remove(path("ds_manifest.json"));
  ASSERT_EQ(::mkfifo(path("ds_manifest.json").c_str(), 0600), 0);
  expect_step(21, "not a regular file");
}

TEST_F(ZeroDamage, ARenamedTagIsWhatItsFilesSay) {
  fs::rename(folder_.path() + "/new", folder_.path() + "/best");
  test::write_all(folder_.path() + "/latest", "best");
  const auto checkpoint = ZeroCheckpoint::open(folder_.path());
  EXPECT_EQ(checkpoint.tag(), "best");
  EXPECT_EQ(checkpoint.global_steps(), 10);
  EXPECT_THAT(checkpoint.notes(), IsEmpty());
  EXPECT_EQ(checkpoint.manifest()["tag"], "new");
}

// Nobody but the bytes of Python's files tells.
TEST_F(ZeroDamage, WeightsOfAnotherCheckpointWithoutManifest) {
  forget_manifest("new");
  formats::Value model = formats::load_torch_file(path(kModel));
  formats::Value module = *model.find("module");
  static const float other[2] = {40, 50};
  module.set(
      "b.weight",
      formats::Tensor::borrow(formats::DType::float32, {2}, other, nullptr));
  model.set("module", module);
  formats::save_torch_file(path(kModel), model);
  const auto checkpoint = ZeroCheckpoint::open(folder_.path());
  ASSERT_EQ(checkpoint.notes().size(), 1u);
  EXPECT_THAT(checkpoint.notes()[0], HasSubstr("weights of 'b.weight'"));
}

TEST_F(ZeroDamage, BadLatest) {
  const std::vector<std::string> contents = {
      "",
      "   \n",
      std::string("new\0x", 5),
      std::string(10'000'000, 'a'),
      "../new",
      "/etc",
      "new/../old",
      "two words",
      "\xff\xfe"};
  for (const std::string& content : contents) {
    test::write_all(folder_.path() + "/latest", content);
    EXPECT_THROW(read_latest(folder_.path()), base::Error);
    // The newest that is whole, and why; only if that is asked for.
    EXPECT_EQ(code_of(folder_.path()), ExitCode::data);
    const auto checkpoint = open_newest();
    EXPECT_EQ(checkpoint.tag(), "new");
    ASSERT_EQ(checkpoint.skipped().size(), 1u);
    EXPECT_THAT(checkpoint.skipped()[0], HasSubstr("latest"));
  }
  // White space around it is what Python strips, too.
  for (const std::string content : {"old\r\n", " old\n", "old"}) {
    test::write_all(folder_.path() + "/latest", content);
    const auto checkpoint = ZeroCheckpoint::open(folder_.path());
    EXPECT_EQ(checkpoint.tag(), "old");
    EXPECT_THAT(checkpoint.skipped(), IsEmpty());
  }
  test::write_all(folder_.path() + "/latest", "gone");
  EXPECT_EQ(open_newest().tag(), "new");
  EXPECT_EQ(code_of(folder_.path()), ExitCode::data);
  fs::remove(folder_.path() + "/latest");
  EXPECT_EQ(open_newest().tag(), "new");
  EXPECT_EQ(code_of(folder_.path()), ExitCode::data);
  fs::create_directory(folder_.path() + "/latest");
  EXPECT_EQ(open_newest().tag(), "new");
}

TEST_F(ZeroDamage, NoneIsWholeOrNoneIsThere) {
  fs::remove(path(kModel));
  fs::remove(folder_.path() + "/old/" + kModel);
  EXPECT_EQ(code_of(folder_.path()), ExitCode::data);
  EXPECT_EQ(code_of(folder_.path(), "new"), ExitCode::data);
  EXPECT_EQ(code_of(folder_.path(), "other"), ExitCode::no_input);
  EXPECT_EQ(code_of(folder_.path(), "../new"), ExitCode::usage);
  EXPECT_EQ(code_of(folder_.path() + "/nothing"), ExitCode::no_input);
  file::TemporaryFolder empty;
  EXPECT_EQ(code_of(empty.path()), ExitCode::no_input);
}

TEST_F(ZeroDamage, OtherKindsAreNamedAndNotSkipped) {
  for (const auto& [name, word] :
       std::vector<std::pair<std::string, std::string>>{
           {"zero_pp_rank_0_mp_rank_00_model_states.pt", "stage 3"},
           {"mp_rank_01_model_states.pt", "in parts"},
           {"layer_0_expert_0_mp_rank_00_model_states.pt", "experts"}}) {
    test::write_all(path(name), "");
    for (const std::string tag : {"new", ""}) {
      try {
        ZeroCheckpoint::open(folder_.path(), tag);
        ADD_FAILURE() << name;
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), ExitCode::config);
        EXPECT_THAT(error.what(), HasSubstr(word));
      }
    }
    fs::remove(path(name));
  }
}

TEST_F(ZeroDamage, TagsAreListedByStep) {
  EXPECT_THAT(list_tags(folder_.path()), ElementsAre("new", "old"));
  test::write_all(path("ds_manifest.json"), "damaged");
  EXPECT_THAT(list_tags(folder_.path()), ElementsAre("new", "old"));
  test::write_all(path(kModel), "damaged");
  EXPECT_THAT(list_tags(folder_.path()), ElementsAre("old", "new"));
  fs::create_directory(folder_.path() + "/.tmp-x");
  fs::copy_file(
      folder_.path() + "/old/" + kModel, folder_.path() + "/.tmp-x/" + kModel);
  EXPECT_EQ(list_tags(folder_.path()).size(), 2u);
}

// A change of a tree of one shard, written back without a manifest.
class ZeroEdits : public ZeroDamage {
 protected:
  ZeroEdits() {
    forget_manifest("new");
  }

  // Sets the value at a path of keys of a dict.
  static formats::Value changed(
      const formats::Value& value,
      const std::vector<std::string>& keys,
      const formats::Value& to,
      size_t depth = 0) {
    if (depth == keys.size()) {
      return to;
    }
    formats::Value out = value;
    const formats::Value* old = value.find(keys[depth]);
    out.set(
        keys[depth],
        changed(old == nullptr ? formats::Value() : *old, keys, to, depth + 1));
    return out;
  }

  void edit(
      const std::string& name,
      const std::vector<std::string>& keys,
      const formats::Value& to) {
    const formats::Value value = formats::load_torch_file(path(name));
    const std::string before = test::read_all(path(name));
    fs::remove(path(name));
    formats::save_torch_file(path(name), changed(value, keys, to));
    EXPECT_EQ(code_of(folder_.path(), "new"), ExitCode::data) << keys.back();
    test::write_all(path(name), before);
    EXPECT_EQ(code_of(folder_.path(), "new"), ExitCode::ok);
  }
};

TEST_F(ZeroEdits, WrongTypesAndSizesOfTheModelFile) {
  for (const char* key :
       {"module",
        "buffer_names",
        "param_shapes",
        "shared_params",
        "global_steps",
        "dp_world_size"}) {
    edit(kModel, {key}, "text");
    edit(kModel, {key}, formats::List{7});
  }
  edit(kModel, {"dp_world_size"}, 3);
  edit(kModel, {"dp_world_size"}, -1);
  edit(kModel, {"module"}, formats::make_ordered_dict());
  edit(kModel, {"param_shapes"}, formats::List{});
}

TEST_F(ZeroEdits, WrongTypesAndSizesOfAShard) {
  const std::string root = "optimizer_state_dict";
  static const float few[2] = {};
  const formats::Tensor small =
      formats::Tensor::borrow(formats::DType::float32, {2}, few);
  for (const char* key :
       {"base_optimizer_state",
        "single_partition_of_fp32_groups",
        "zero_stage",
        "partition_count",
        "loss_scaler",
        "param_alignment_paddings",
        "clip_grad"}) {
    edit(kShard0, {root, key}, "text");
  }
  edit(kShard0, {root, "zero_stage"}, 3);
  edit(kShard0, {root, "partition_count"}, formats::List{2, 4});
  edit(
      kShard0,
      {root, "param_alignment_paddings"},
      formats::List{formats::List{0}, formats::List{0}});
  edit(
      kShard0,
      {root, "single_partition_of_fp32_groups"},
      formats::List{small, small});
  edit(kShard0, {root, "base_optimizer_state", "state"}, formats::make_dict());
  edit(
      kShard1, {root, "base_optimizer_state", "param_groups"}, formats::List{});
  edit(kShard1, {root}, formats::make_dict());
}

} // namespace
} // namespace deepspeed::checkpoint
