// The table of settings and their ranges.
#include "deepspeed/settings/settings.h"

#include <gtest/gtest.h>

#include <filesystem>

#include <functional>
#include <limits>
#include <set>

#include "deepspeed/base/error.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;

// The message of validate(), "" if it accepts.
std::string refusal(const std::function<void(Settings&)>& change) {
  Settings settings;
  change(settings);
  try {
    validate(settings);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    EXPECT_FALSE(error.where().empty());
    return error.report();
  }
  return "";
}

TEST(Settings, NamesAreUniqueAndHelpIsThere) {
  Settings settings;
  std::set<std::string> names;
  for (const Setting& field : fields_of(settings)) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_EQ(field.help.empty(), !field.is_flag) << field.name;
    EXPECT_FALSE(field.group.empty()) << field.name;
  }
  EXPECT_EQ(names.size(), 51u);
}

TEST(Settings, FieldsPointToDifferentMembers) {
  Settings settings;
  std::set<const void*> places;
  for (const Setting& field : fields_of(settings)) {
    std::visit([&](auto* at) { places.insert(at); }, field.value);
  }
  EXPECT_EQ(places.size(), fields_of(settings).size());
}

TEST(Settings, DifferencesNameWhatChanged) {
  Settings from;
  Settings to;
  EXPECT_TRUE(differences(from, to).empty());
  to.optimizer.learning_rate = 5e-5;
  to.folders.checkpoint_dir = "elsewhere"; // not stored: no difference
  const auto changes = differences(from, to);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].name, "learning_rate");
  EXPECT_EQ(changes[0].from, "0.0001");
  EXPECT_EQ(changes[0].to, "5e-05");
}

TEST(Paths, AreStoredAsSeenFromEverywhere) {
  const std::string here = std::filesystem::current_path();
  Settings settings;
  settings.data.dataset = "no such file";
  settings.data.tokenizer = "."; // is there
  settings.data.validation_file = "a/../b.txt";
  settings.run.export_dir = "out";
  settings.engine.deepspeed_config = "/ds.json";
  make_paths_absolute(settings);
  EXPECT_EQ(settings.data.dataset, "no such file"); // a name to look up
  EXPECT_EQ(settings.data.tokenizer, here + "/");
  EXPECT_EQ(settings.data.validation_file, here + "/b.txt");
  EXPECT_EQ(settings.run.export_dir, here + "/out");
  EXPECT_EQ(settings.engine.deepspeed_config, "/ds.json");
  EXPECT_EQ(settings.data.data_dir, "");
}

TEST(Validate, AcceptsDefaultsAndLimits) {
  EXPECT_EQ(refusal([](Settings&) {}), "");
  EXPECT_EQ(
      refusal([](Settings& s) {
        s.data.max_seq_length = 3;
        s.data.mask_prob = 1;
        s.data.random_replace_prob = 0.9;
        s.data.unmask_replace_prob = 0.1;
        s.model.dropout = 0;
        s.optimizer.learning_rate = 0;
        s.run.num_iterations = 1;
        s.run.seed = std::numeric_limits<int64_t>::max();
      }),
      "");
}

TEST(Validate, SaysWhichHeadsDoNotDivide) {
  const std::string report = refusal([](Settings& s) {
    s.model.h_dim = 100;
    s.model.num_heads = 8;
  });
  EXPECT_NE(
      report.find("h_dim 100 is not a multiple of num_heads 8"),
      std::string::npos);
  EXPECT_NE(report.find("--h_dim 104"), std::string::npos);
}

TEST(Validate, RefusesValuesOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<std::string, std::function<void(Settings&)>>>
      wrong{
          {"max_seq_length", [](Settings& s) { s.data.max_seq_length = 513; }},
          {"max_seq_length", [](Settings& s) { s.data.max_seq_length = 2; }},
          {"mask_prob", [](Settings& s) { s.data.mask_prob = 0; }},
          {"mask_prob", [](Settings& s) { s.data.mask_prob = 1.01; }},
          {"mask_prob", [=](Settings& s) { s.data.mask_prob = nan; }},
          {"random_replace_prob + unmask_replace_prob",
           [](Settings& s) { s.data.random_replace_prob = 0.95; }},
          {"unmask_replace_prob",
           [](Settings& s) { s.data.unmask_replace_prob = -0.1; }},
          {"num_layers", [](Settings& s) { s.model.num_layers = 0; }},
          {"num_heads", [](Settings& s) { s.model.num_heads = 0; }},
          {"ff_dim", [](Settings& s) { s.model.ff_dim = -1; }},
          {"h_dim", [](Settings& s) { s.model.h_dim = 0; }},
          {"dropout", [](Settings& s) { s.model.dropout = 1; }},
          {"batch_size", [](Settings& s) { s.optimizer.batch_size = 0; }},
          {"gradient_accumulation_steps",
           [](Settings& s) { s.optimizer.gradient_accumulation_steps = 0; }},
          {"learning_rate",
           [=](Settings& s) { s.optimizer.learning_rate = inf; }},
          {"weight_decay", [](Settings& s) { s.optimizer.weight_decay = -1; }},
          {"adam_beta1", [](Settings& s) { s.optimizer.adam_beta1 = 1; }},
          {"adam_beta2", [=](Settings& s) { s.optimizer.adam_beta2 = nan; }},
          {"adam_epsilon", [](Settings& s) { s.optimizer.adam_epsilon = -1; }},
          {"max_grad_norm",
           [=](Settings& s) { s.optimizer.max_grad_norm = inf; }},
          {"warmup_steps", [](Settings& s) { s.optimizer.warmup_steps = -1; }},
          {"warmup_steps", [](Settings& s) { s.optimizer.warmup_steps = 10; }},
          {"num_iterations", [](Settings& s) { s.run.num_iterations = 0; }},
          {"checkpoint_every", [](Settings& s) { s.run.checkpoint_every = 0; }},
          {"log_every", [](Settings& s) { s.run.log_every = 0; }},
          {"eval_every", [](Settings& s) { s.run.eval_every = -1; }},
          {"keep_last", [](Settings& s) { s.run.keep_last = -1; }},
          {"seed", [](Settings& s) { s.run.seed = -1; }},
          {"num_threads", [](Settings& s) { s.machine.num_threads = -1; }},
          {"local_rank", [](Settings& s) { s.machine.local_rank = -2; }},
          {"tokenizer", [](Settings& s) { s.data.tokenizer = ""; }},
          {"dataset", [](Settings& s) { s.data.dataset = "a\xff"; }},
          {"dataset", [](Settings& s) { s.data.dataset = "\xed\xa0\x80"; }},
          {"export",
           [](Settings& s) { s.run.export_dir = std::string("a\0b", 3); }},
      };
  for (const auto& [name, change] : wrong) {
    EXPECT_EQ(refusal(change).find("error: " + name), 0u)
        << name << ": " << refusal(change);
  }
}

TEST(Validate, NamesTheChoices) {
  const std::string report =
      refusal([](Settings& s) { s.machine.dtype = "bf1"; });
  EXPECT_NE(report.find("fp32, bf16, not \"bf1\""), std::string::npos);
  EXPECT_NE(report.find("did you mean bf16?"), std::string::npos);
  EXPECT_EQ(
      refusal([](Settings& s) { s.data.dataset = "d\xc3\xa9j\xc3\xa0"; }), "");
}

} // namespace
} // namespace deepspeed::settings
