// The tables before and after a run, and the hints.
#include "deepspeed/pretrain/run_text.h"

#include <gmock/gmock.h>

#include "deepspeed/pretrain/test_data.h"

namespace deepspeed::pretrain {
namespace {

using testing::Contains;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

// As far as tables look at it.
class ShownModel : public TrainedModel {
 public:
  explicit ShownModel(const settings::ModelSettings& settings)
      : model_(options_of(settings)) {}

  void save(const std::string&, const LoopState&) override {
    throw std::logic_error("not for saving");
  }
  checkpoint::CheckpointKind kind() const override {
    return checkpoint::CheckpointKind::steps;
  }
  LoadedState load(const checkpoint::CheckpointPath&) override {
    throw std::logic_error("not for loading");
  }
  bool is_finite() const override {
    return true;
  }
  std::vector<bert::NamedTensor> weights() const override {
    return {};
  }
  std::string checkpoint_name(int64_t) const override {
    return "";
  }
  bert::RobertaForMaskedLM model() const override {
    return model_;
  }

 private:
  static bert::RobertaOptions options_of(
      const settings::ModelSettings& settings) {
    bert::RobertaOptions options;
    options.config.vocab_size = 300;
    options.config.hidden_size = settings.h_dim;
    options.config.num_hidden_layers = settings.num_layers;
    options.config.num_attention_heads = settings.num_heads;
    options.config.intermediate_size = settings.ff_dim;
    return options;
  }

  bert::RobertaForMaskedLM model_;
};

class RunTables : public testing::Test {
 protected:
  report::Rows start() {
    return start_table(
        {data_.settings, opened_, model_, "", 2, "gloo", 1000, nullptr});
  }

  TestData data_;
  Data opened_ = data_.open();
  ShownModel model_{data_.settings.model};
};

TEST_F(RunTables, StartTellsWhatWillBeTrained) {
  data_.settings.optimizer.gradient_accumulation_steps = 3;
  data_.settings.optimizer.warmup_steps = 2000;
  data_.settings.optimizer.lr_scheduler_type = "linear";
  const report::Rows rows = start();
  EXPECT_THAT(
      rows,
      Contains(Pair(
          "Model", "RoBERTa, 2 layers, hidden 16, 2 heads, feed-forward 24")));
  EXPECT_THAT(
      rows, Contains(Pair("Data", HasSubstr("(64 lines, 2,080 tokens, "))));
  EXPECT_THAT(
      rows,
      Contains(Pair(
          "Batch",
          "48 lines = 8 x 3 micro batches x 2 ranks, balanced by tokens")));
  EXPECT_THAT(rows, Contains(Pair("Steps", "1,000 done, until 64")));
  EXPECT_THAT(
      rows,
      Contains(Pair(
          "Optimizer",
          "Adam, learning rate 0.0001 linear with 2,000 warm-up steps, fp32")));
  EXPECT_THAT(rows, Not(Contains(Pair("Engine", testing::_))));
  EXPECT_THAT(rows, Not(Contains(Pair("Output", testing::_)))); // a dry run
}

TEST_F(RunTables, StartTellsHowTheEngineWorks) {
  data_.settings.engine.enabled = true;
  data_.settings.engine.offload_optimizer = "none";
  data_.settings.optimizer.max_grad_norm = 0.5;
  const report::Rows rows = start();
  EXPECT_THAT(
      rows, Contains(Pair("Engine", "ZeRO stage 1, 2 ranks over gloo")));
  EXPECT_THAT(
      rows, Contains(Pair("Optimizer", HasSubstr(", clipped to norm 0.5"))));
}

TEST_F(RunTables, EndTellsHowToGoOn) {
  const report::Experiment experiment =
      report::Experiment::create(data_.path("a run"), data_.settings);
  RunResult result{data_.settings, opened_, model_, experiment};
  result.step = 64;
  result.phases = {{"data", 1.0}, {"compute", 59.0}};
  report::EndSummary summary = end_summary(result);
  EXPECT_EQ(summary.title, "Finished after 64 steps in 1m00s");
  EXPECT_THAT(summary.rows, Not(Contains(Pair("Speed", testing::_))));
  const std::string folder = "'" + experiment.path() + "'";
  EXPECT_THAT(
      summary.next_commands[0],
      EndsWith(
          "train_bert --load_checkpoint_dir " + folder +
          " --num_iterations 128"));
  EXPECT_THAT(summary.next_commands[1], HasSubstr("fill_mask " + folder));

  data_.settings.run.export_dir = "/exported";
  EXPECT_THAT(
      end_summary(result).next_commands[1], HasSubstr("fill_mask /exported "));
  result.signal = SIGTERM; // nothing was exported, and steps are left
  result.speed = {1000, 2e9, 4e9};
  summary = end_summary(result);
  EXPECT_EQ(summary.title, "Stopped by SIGTERM after step 64, saved");
  EXPECT_THAT(
      summary.rows,
      Contains(Pair("Speed", HasSubstr("1,000 tokens/s, 50.0 %"))));
  EXPECT_THAT(
      summary.next_commands[0],
      EndsWith("train_bert --load_checkpoint_dir " + folder));
  EXPECT_THAT(summary.next_commands[1], HasSubstr("fill_mask " + folder));
}

TEST(RecoveryHint, IsTheNewestThatWasGoodWithASmallerRate) {
  settings::Settings settings;
  settings.optimizer.learning_rate = 1e-4;
  EXPECT_EQ(
      recovery_hint(settings, "/run", 30),
      "the last good checkpoint is of step 30: --load_checkpoint_dir /run "
      "--learning_rate 1e-05 --max_grad_norm 1");
  settings.optimizer.max_grad_norm = 2;
  EXPECT_EQ(
      recovery_hint(settings, "/run", -1),
      "nothing good was saved: start again with --learning_rate 1e-05");
  settings.optimizer.learning_rate = 0.5; // the default, not a tenth
  EXPECT_THAT(
      recovery_hint(settings, "/run", -1), HasSubstr("--learning_rate 0.0001"));
  settings.engine.deepspeed_config = "ds.json";
  EXPECT_EQ(
      recovery_hint(settings, "/run", -1),
      "nothing good was saved: start again with a smaller lr in ds.json");
}

} // namespace
} // namespace deepspeed::pretrain
