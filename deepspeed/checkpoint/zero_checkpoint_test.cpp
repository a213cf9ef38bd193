// Round trips of all stages, dtypes and numbers of ranks, and re-sharding.
#include "deepspeed/checkpoint/zero_checkpoint.h"

#include <gmock/gmock.h>

#include <tuple>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/json_value.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

using test::SmallModel;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Case = std::tuple<int, int, formats::DType>; // stage, ranks, dtype
class ZeroRoundTrip : public ::testing::TestWithParam<Case> {
 protected:
  ZeroRoundTrip() {
    std::tie(model_.stage, model_.ranks, model_.dtype) = GetParam();
    model_.save(folder_.path());
  }

  ZeroCheckpoint open() const {
    return ZeroCheckpoint::open(folder_.path());
  }

  SmallModel model_;
  file::TemporaryFolder folder_;
};

TEST_P(ZeroRoundTrip, EveryRangeOfEveryParameter) {
  const ZeroCheckpoint checkpoint = open();
  const ZeroTopology topology = model_.topology();
  for (size_t g = 0; g < topology.groups.size(); ++g) {
    int64_t base = 0;
    for (const ZeroParameter& parameter : topology.groups[g].parameters) {
      EXPECT_EQ(checkpoint.step(parameter.name), 7);
      for (int64_t begin = 0; begin <= parameter.numel(); ++begin) {
        for (int64_t end = begin; end <= parameter.numel(); ++end) {
          std::vector<float> out(static_cast<size_t>(end - begin) + 1, -99);
          const auto check = [&](const std::string& kind) {
            for (int64_t i = begin; i < end; ++i) {
              ASSERT_EQ(
                  out[static_cast<size_t>(i - begin)],
                  SmallModel::value(kind, g, base + i))
                  << parameter.name << " " << kind << " " << i;
            }
            ASSERT_EQ(out.back(), -99) << "written past the end";
          };
          checkpoint.read_fp32(parameter.name, begin, end, out.data());
          // What the module has in 16 bits is no master weight.
          check("fp32");
          for (const std::string kind : {"exp_avg", "exp_avg_sq"}) {
            EXPECT_TRUE(checkpoint.has_state(kind, parameter.name));
            checkpoint.read_state(kind, parameter.name, begin, end, out.data());
            check(kind);
          }
        }
      }
      base += parameter.numel();
    }
  }
}

TEST_P(ZeroRoundTrip, EverythingElse) {
  const ZeroCheckpoint checkpoint = open();
  EXPECT_EQ(checkpoint.tag(), "t");
  EXPECT_THAT(checkpoint.skipped(), IsEmpty());
  EXPECT_EQ(checkpoint.topology().stage, model_.stage);
  EXPECT_EQ(checkpoint.topology().ranks, model_.ranks);
  EXPECT_EQ(checkpoint.topology().dtype, model_.dtype);
  ASSERT_EQ(checkpoint.topology().groups.size(), 2u);
  const ZeroGroup& group = checkpoint.topology().groups[0];
  EXPECT_EQ(group.parameters[1].name, "a.weight");
  EXPECT_THAT(group.parameters[1].sizes, ElementsAre(3, 7));
  EXPECT_EQ(
      formats::json_of_value(group.hyperparameters),
      formats::json_of_value(model_.topology().groups[0].hyperparameters));

  EXPECT_EQ(checkpoint.module().size(), model_.model().module.size());
  EXPECT_EQ(checkpoint.find_module("nothing"), nullptr);
  ASSERT_NE(checkpoint.find_module("decoder.weight"), nullptr);
  EXPECT_EQ(
      checkpoint.find_module("decoder.weight")->storage,
      checkpoint.find_module("embed.weight")->storage);
  EXPECT_EQ(checkpoint.find_module("table")->dtype, formats::DType::float32);
  EXPECT_THAT(checkpoint.buffers(), ElementsAre("table", "version"));
  EXPECT_THAT(checkpoint.frozen(), ElementsAre("frozen.weight"));
  EXPECT_THAT(
      checkpoint.shared(),
      ElementsAre(std::pair<std::string, std::string>(
          "decoder.weight", "embed.weight")));

  EXPECT_EQ(checkpoint.global_steps(), 8);
  EXPECT_EQ(checkpoint.skipped_steps(), 1);
  EXPECT_EQ(checkpoint.global_samples(), 96);
  EXPECT_EQ(
      formats::json_of_value(checkpoint.lr_scheduler()),
      base::Json({{"last_batch_iteration", 6}}));
  EXPECT_EQ(
      formats::json_of_value(checkpoint.client_state()),
      base::Json({{"checkpoint_step", 7}}));
  EXPECT_EQ(checkpoint.manifest()["extra"]["position"], 12);
  EXPECT_THAT(checkpoint.state_names(), ElementsAre("exp_avg", "exp_avg_sq"));
  if (model_.stage > 0) {
    EXPECT_EQ(checkpoint.clip_grad(), 1.5);
  }
  if (model_.dtype == formats::DType::float16) {
    EXPECT_TRUE(checkpoint.loss_scaler().dynamic);
    EXPECT_EQ(checkpoint.loss_scaler().scale, 512);
    EXPECT_EQ(checkpoint.loss_scaler().hysteresis_left, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All,
    ZeroRoundTrip,
    ::testing::Combine(
        ::testing::Values(0, 1, 2),
        ::testing::Values(1, 2, 3, 4, 7),
        ::testing::Values(
            formats::DType::float32,
            formats::DType::bfloat16,
            formats::DType::float16)));

// A model read from one number of ranks and written for the next.
TEST(ZeroCheckpoint, FourTwoThreeOneRanksKeepEveryBit) {
  file::TemporaryFolder folder;
  SmallModel model;
  model.ranks = 4;
  model.save(folder.path(), "ranks4");
  std::string tag = "ranks4";
  for (const int ranks : {2, 3, 1}) {
    const auto from = ZeroCheckpoint::open(folder.path(), tag);
    model.ranks = ranks;
    tag = "ranks" + std::to_string(ranks);
    CommitOptions options;
    options.folder = folder.path();
    options.tag = tag;
    options.run_id = test::kRunId;
    CheckpointCommit commit(options);
    commit.begin(1);
    const ZeroTopology topology = model.topology();
    Manifest manifest = model.manifest(tag);
    manifest.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(model.topology(), model.model(), nullptr)));
    for (int rank = 0; rank < ranks; ++rank) {
      OptimizerStates states = model.optimizer(rank);
      for (size_t g = 0; g < states.groups.size(); ++g) {
        const ZeroGroup& group = topology.groups[g];
        const Shard shard = shard_of(group.numel(), ranks, rank);
        std::vector<float> values(static_cast<size_t>(shard.size));
        int64_t begin = 0;
        for (const ZeroParameter& parameter : group.parameters) {
          const Overlap part = overlap_of(shard, begin, parameter.numel());
          from.read_fp32(
              parameter.name,
              part.in_parameter,
              part.in_parameter + part.numel,
              values.data() + part.in_shard);
          begin += parameter.numel();
        }
        states.groups[g].fp32 = SmallModel::floats(values, {shard.size});
      }
      manifest.files.push_back(commit.add(
          shard_states_name(rank, true),
          shard_states_value(
              model.topology(), rank, states, formats::make_dict())));
    }
    commit.publish(manifest);
  }
  const auto last = ZeroCheckpoint::open(folder.path());
  EXPECT_EQ(last.tag(), "ranks1");
  std::vector<float> all(21);
  last.read_fp32("a.weight", 0, 21, all.data());
  for (int64_t i = 0; i < 21; ++i) {
    EXPECT_EQ(
        all[static_cast<size_t>(i)], SmallModel::value("fp32", 0, 15 + i));
  }
}

TEST(ZeroCheckpoint, BeforeTheFirstStepThereIsNoState) {
  for (const int stage : {0, 2}) {
    file::TemporaryFolder folder;
    SmallModel model;
    model.stage = stage;
    CommitOptions options;
    options.folder = folder.path();
    options.tag = "t";
    options.run_id = test::kRunId;
    CheckpointCommit commit(options);
    commit.begin(1);
    Manifest manifest = model.manifest("t");
    const auto without = [&](int rank) {
      OptimizerStates states = model.optimizer(rank);
      for (GroupStates& group : states.groups) {
        group.states.clear();
        group.step = 0;
      }
      return states;
    };
    const OptimizerStates whole = without(0);
    manifest.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(
            model.topology(), model.model(), stage == 0 ? &whole : nullptr)));
    for (int rank = 0; stage > 0 && rank < 2; ++rank) {
      manifest.files.push_back(commit.add(
          shard_states_name(rank, true),
          shard_states_value(
              model.topology(), rank, without(rank), formats::make_dict())));
    }
    commit.publish(manifest);
    const auto checkpoint = ZeroCheckpoint::open(folder.path());
    EXPECT_THAT(checkpoint.state_names(), IsEmpty());
    EXPECT_FALSE(checkpoint.has_state("exp_avg", "a.weight"));
    EXPECT_EQ(checkpoint.step("a.weight"), 0);
    float out[2] = {5, 5};
    checkpoint.read_state("exp_avg", "a.weight", 3, 5, out);
    EXPECT_EQ(out[0], 0);
    EXPECT_EQ(out[1], 0);
    EXPECT_THROW(
        checkpoint.read_fp32("frozen.weight", 0, 1, out), std::out_of_range);
    EXPECT_THROW(
        checkpoint.read_fp32("a.weight", 20, 22, out), std::out_of_range);
  }
}

TEST(ZeroCheckpoint, AClientStateMayNotTakeTheEnginesKeys) {
  SmallModel model;
  ModelStates states = model.model();
  states.client_state.set("module", 1);
  try {
    model_states_value(model.topology(), states, nullptr);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::usage);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("'module'"));
  }
}

TEST(ZeroCheckpoint, TheEstimateIsAnUpperBoundThatIsClose) {
  file::TemporaryFolder folder;
  const SmallModel model;
  const formats::Value value =
      model_states_value(model.topology(), model.model(), nullptr);
  const uint64_t size =
      formats::save_torch_file(folder.path() + "/f.pt", value).size;
  EXPECT_GE(estimate_file_bytes(value), size);
  EXPECT_LT(estimate_file_bytes(value), size + 64 * 1024);
}

} // namespace
} // namespace deepspeed::checkpoint
