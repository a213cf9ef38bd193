// hparams.json against what Python writes and reads.
#include "deepspeed/settings/hparams.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;

// As json.dump(all_arguments, handle, indent=2) of train_bert.py wrote it.
constexpr const char* kHelloDeepSpeed = R"({
  "mask_prob": 0.15,
  "random_replace_prob": 0.1,
  "unmask_replace_prob": 0.1,
  "max_seq_length": 512,
  "tokenizer": "roberta-base",
  "num_layers": 6,
  "num_heads": 8,
  "ff_dim": 512,
  "h_dim": 256,
  "dropout": 0.1,
  "batch_size": 8,
  "num_iterations": 10000,
  "checkpoint_every": 1000)";

// What json.dump adds for our settings.
constexpr const char* kOurs = R"(,
  "dataset": "encyclopedia",
  "data_dir": "",
  "text_column": "text",
  "validation_file": "",
  "gradient_accumulation_steps": 1,
  "balance_batches": true,
  "learning_rate": 0.0001,
  "weight_decay": 0.0,
  "adam_beta1": 0.9,
  "adam_beta2": 0.999,
  "adam_epsilon": 1e-08,
  "max_grad_norm": 0.0,
  "lr_scheduler_type": "constant",
  "warmup_steps": 0,
  "log_every": 10,
  "eval_every": 0,
  "keep_last": 0,
  "export": "",
  "seed": 42,
  "dtype": "fp32",
  "implementation": "fast",
  "num_threads": 0
})";

std::string refusal(const std::string& text) {
  try {
    parse_hparams(text, "x.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data) << text;
    EXPECT_EQ(error.where().find("x.json"), 0u) << text;
    return error.report();
  }
  return "";
}

TEST(Hparams, EqualsJsonDump) {
  EXPECT_EQ(to_hparams(Settings()), std::string(kHelloDeepSpeed) + kOurs);
}

TEST(Hparams, ReadsAFileOfThePythonProgram) {
  std::string text = std::string(kHelloDeepSpeed) + "\n}";
  text.replace(text.find("256"), 3, "128");
  text.replace(text.find("0.1,"), 3, "0"); // --random_replace_prob 0
  const Settings settings = parse_hparams(text, "x.json");
  EXPECT_EQ(settings.model.h_dim, 128);
  EXPECT_EQ(settings.data.random_replace_prob, 0.0);
  EXPECT_EQ(settings.optimizer.learning_rate, 1e-4); // ours: the default
}

TEST(Hparams, AnExperimentOfBeforeBalancedBatchesGoesOnAsItBegan) {
  EXPECT_TRUE(Settings().optimizer.balance_batches);
  EXPECT_FALSE(parse_hparams("{}", "x").optimizer.balance_batches);
  for (const bool balanced : {false, true}) {
    Settings written;
    written.optimizer.balance_batches = balanced;
    const std::string text = to_hparams_file(written);
    EXPECT_EQ(parse_hparams(text, "x").optimizer.balance_batches, balanced);
    EXPECT_TRUE(changes_by_hand(text, "x").empty());
  }
}

TEST(Hparams, EveryFieldReadsBack) {
  Settings written = engine_defaults();
  double next = 2;
  for (const Setting& field : fields_of(written)) {
    if (!field.stored) {
      continue;
    }
    next += 1;
    if (auto* const* count = std::get_if<int64_t*>(&field.value)) {
      **count = static_cast<int64_t>(next);
    } else if (auto* const* real = std::get_if<double*>(&field.value)) {
      **real = 1 / next;
    } else if (auto* const* text = std::get_if<std::string*>(&field.value)) {
      **text = "d\xc3\xa9j\xc3\xa0 \"\\\n\x7f" + std::to_string(next);
    }
  }
  const std::string text = to_hparams(written);
  EXPECT_NE(text.find(R"("d\u00e9j\u00e0 \"\\\n\u007f)"), std::string::npos);
  EXPECT_TRUE(differences(written, parse_hparams(text, "x")).empty());
  EXPECT_FALSE(differences(written, Settings()).empty());
}

TEST(Hparams, TheEnginesFieldsAreThatProgramsOnly) {
  EXPECT_EQ(to_hparams(Settings()).find("zero_stage"), std::string::npos);
  const std::string text = to_hparams(engine_defaults());
  EXPECT_NE(text.find("\"zero_stage\": 1"), std::string::npos);
  EXPECT_NE(text.find("\"dtype\": \"bf16\""), std::string::npos);
  // A file of the Python program has 13 keys; the rest are the defaults.
  EXPECT_EQ(parse_hparams("{}", "x", engine_defaults()).machine.dtype, "bf16");
}

TEST(Hparams, RefusesUnknownKeysWithTheNearest) {
  const std::string report = refusal(R"({"num_layer": 6})");
  EXPECT_NE(report.find("unknown key \"num_layer\""), std::string::npos);
  EXPECT_NE(report.find("did you mean \"num_layers\"?"), std::string::npos);
  EXPECT_NE(refusal(R"({"checkpoint_dir": "x"})"), ""); // never stored
}

TEST(Hparams, RefusesWrongTypes) {
  EXPECT_NE(
      refusal(R"({"batch_size": "8"})")
          .find("batch_size must be a whole number, not \"8\""),
      std::string::npos);
  EXPECT_NE(refusal(R"({"batch_size": 8.5})"), "");
  EXPECT_NE(refusal(R"({"batch_size": true})"), "");
  EXPECT_NE(refusal(R"({"seed": 9223372036854775808})"), "");
  EXPECT_NE(refusal(R"({"seed": -99999999999999999999})"), "");
  EXPECT_NE(
      refusal(R"({"dropout": null})")
          .find("dropout must be a number, not null"),
      std::string::npos);
  EXPECT_NE(refusal(R"({"dropout": NaN})"), "");
  EXPECT_NE(refusal(R"({"dropout": 1e999})"), "");
  EXPECT_NE(refusal(R"({"tokenizer": ["roberta-base"]})"), "");
  EXPECT_NE(refusal(R"([1])"), "");
  EXPECT_NE(refusal(R"({"h_dim": 8, "h_dim": 8})"), "");
  EXPECT_NE(refusal("{ /* Python reads no comments */ }"), "");
  EXPECT_NE(refusal(""), "");
}

TEST(Hparams, WhatWasTrainedOnIsStoredWhenItIsKnown) {
  Settings settings;
  EXPECT_EQ(to_hparams(settings).find("dataset_hash"), std::string::npos);
  settings.trained_data.dataset_hash = "0f";
  settings.trained_data.dataset_bytes = 12;
  const std::string text = to_hparams(settings);
  EXPECT_NE(text.find("\"dataset_hash\": \"0f\""), std::string::npos);
  EXPECT_EQ(parse_hparams(text, "x").trained_data.dataset_bytes, 12);
}

TEST(Hparams, AChangeByHandIsNamed) {
  const std::string text = to_hparams_file(Settings());
  EXPECT_TRUE(changes_by_hand(text, "x").empty());
  EXPECT_TRUE(differences(parse_hparams(text, "x"), Settings()).empty());
  std::string edited = text; // the first of the two
  edited.replace(edited.find("0.0001"), 6, "0.0003");
  const auto changes = changes_by_hand(edited, "x");
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].name, "learning_rate");
  EXPECT_EQ(changes[0].from, "0.0001");
  EXPECT_EQ(changes[0].to, "0.0003");
  EXPECT_EQ(parse_hparams(edited, "x").optimizer.learning_rate, 0.0003);
  // As sed does it: in both.
  edited.replace(edited.rfind("0.0001"), 6, "0.0003");
  const auto both = changes_by_hand(edited, "x");
  ASSERT_EQ(both.size(), 1u);
  EXPECT_EQ(both[0].name, "both copies in hparams.json, checksum");
  // Older files, and Python's, have nothing to compare with.
  EXPECT_TRUE(changes_by_hand(kHelloDeepSpeed + std::string("}"), "x").empty());
}

TEST(Hparams, NoFlippedBitChangesASettingUnseen) {
  Settings settings = engine_defaults();
  settings.trained_data.dataset_hash = "0123456789abcdef";
  settings.trained_data.dataset_bytes = 4711;
  const std::string text = to_hparams_file(settings);
  int unseen = 0;
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    try {
      const Settings read = parse_hparams(flipped, "x", engine_defaults());
      const bool is_said =
          !changes_by_hand(flipped, "x", engine_defaults()).empty();
      EXPECT_TRUE(is_said || differences(settings, read).empty())
          << flipped.substr(bit / 8 - 20, 40);
      unseen += is_said ? 0 : 1;
    } catch (const Error&) {
      continue;
    }
  }
  EXPECT_LT(unseen, 200); // white space for white space, 0.0 for 0.00
}

TEST(Hparams, LongValuesAreCutInMessages) {
  const std::string report =
      refusal("{\"batch_size\": \"" + std::string(10000, 'x') + "\"}");
  EXPECT_LT(report.size(), 200u);
}

TEST(Hparams, FileErrorsHaveThePath) {
  const file::TemporaryFolder folder;
  const std::string path = folder.path() + "/hparams.json";
  try {
    read_hparams(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::no_input);
    EXPECT_EQ(error.where(), path);
  }
  file::write_file_atomically(path, std::string(2 << 20, ' '));
  EXPECT_THROW(read_hparams(path), Error);
}

// Values and texts of Python's repr.
TEST(FormatExact, EqualsPythonsRepr) {
  EXPECT_EQ(base::format_exact(0.15), "0.15");
  EXPECT_EQ(base::format_exact(0.0), "0.0");
  EXPECT_EQ(base::format_exact(-0.0), "-0.0");
  EXPECT_EQ(base::format_exact(1e-4), "0.0001");
  EXPECT_EQ(base::format_exact(1e-5), "1e-05");
  EXPECT_EQ(base::format_exact(2.5e-7), "2.5e-07");
  EXPECT_EQ(base::format_exact(1e-300), "1e-300");
  EXPECT_EQ(base::format_exact(3.0), "3.0");
  EXPECT_EQ(base::format_exact(1e15), "1000000000000000.0");
  EXPECT_EQ(base::format_exact(1e16), "1e+16");
  EXPECT_EQ(base::format_exact(1.0 / 3), "0.3333333333333333");
  EXPECT_EQ(base::format_exact(5e-324), "5e-324");
}

} // namespace
} // namespace deepspeed::settings
