// The command line of the training programs.
#include "deepspeed/settings/options.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;
using Words = std::vector<std::string>;

const ProgramText kProgram{"train_bert", "pretrains RoBERTa", "train_bert 0"};

Options parse(Words words) {
  return parse_options(words, kProgram);
}

// The program with the engine's flags.
Options parse_ds(Words words) {
  ProgramText program = kProgram;
  program.defaults = engine_defaults();
  return parse_options(words, program);
}

std::string refusal(const Words& words, ExitCode code = ExitCode::usage) {
  try {
    parse(words);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.report();
  }
  return "";
}

TEST(Options, ReadsBothSpellings) {
  const Options options = parse(
      {"--checkpoint-dir",
       "./a-b_c",
       "--num_layers=2",
       "--learning-rate=1e-3",
       "--local_rank",
       "-1",
       "--dataset=x=--y-z",
       "--validation_file",
       ""});
  EXPECT_EQ(options.settings.folders.checkpoint_dir, "./a-b_c");
  EXPECT_EQ(options.settings.model.num_layers, 2);
  EXPECT_EQ(options.settings.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(options.settings.machine.local_rank, -1);
  EXPECT_EQ(options.settings.data.dataset, "x=--y-z");
  EXPECT_EQ(
      options.given,
      (std::set<std::string>{
          "checkpoint_dir",
          "num_layers",
          "learning_rate",
          "local_rank",
          "dataset",
          "validation_file"}));
}

TEST(Options, EveryFlagSetsItsOwnField) {
  Settings defaults;
  for (const Setting& field : fields_of(defaults)) {
    const bool is_switch = std::holds_alternative<bool*>(field.value);
    const std::string value = is_switch ? "true" : "7";
    if (field.name == "load_checkpoint_dir" || !field.is_flag) {
      continue;
    }
    const Options options =
        parse_ds({"--" + field.name, value, "--checkpoint_dir", "7"});
    Settings copy = options.settings;
    for (const Setting& other : fields_of(copy)) {
      if (other.name == field.name) {
        const std::string text = value_text(other);
        EXPECT_TRUE(text == value || text == value + ".0") << other.name;
      }
    }
    EXPECT_TRUE(options.given.contains(field.name));
  }
}

TEST(Options, TheEnginesFlagsAreThatProgramsOnly) {
  EXPECT_NE(
      refusal({"--checkpoint_dir", "x", "--zero_stage", "2"})
          .find("unknown flag --zero_stage"),
      std::string::npos);
  const Options options =
      parse_ds({"--checkpoint_dir", "x", "--zero_stage", "2"});
  EXPECT_EQ(options.settings.engine.zero_stage, 2);
  EXPECT_EQ(options.settings.machine.dtype, "bf16");
}

TEST(Options, Booleans) {
  EXPECT_TRUE(parse({"--dry_run"}).settings.machine.dry_run);
  EXPECT_TRUE(parse({"--dry-run", "true"}).settings.machine.dry_run);
  EXPECT_TRUE(parse({"--dry_run=True"}).settings.machine.dry_run);
  const Words folder{"--checkpoint_dir", "x"};
  for (const Words& off :
       {Words{"--dry_run", "false"},
        Words{"--dry_run=False"},
        Words{"--no_dry_run"},
        Words{"--no-dry-run"}}) {
    Words words = off;
    words.insert(words.end(), folder.begin(), folder.end());
    const Options options = parse(words);
    EXPECT_FALSE(options.settings.machine.dry_run);
    EXPECT_TRUE(options.given.contains("dry_run"));
    EXPECT_EQ(options.settings.folders.checkpoint_dir, "x");
  }
  EXPECT_TRUE(
      parse({"--dry_run", "--checkpoint_dir", "x"}).settings.machine.dry_run);
  EXPECT_NE(
      refusal({"--dry_run=maybe"}).find("true or false"), std::string::npos);
  EXPECT_NE(refusal({"--dry_run", "--no_dry_run"}), "");
}

TEST(Options, TheLastValueCounts) {
  EXPECT_EQ(
      parse({"--checkpoint_dir", "x", "--h_dim", "8", "--h_dim=16"})
          .settings.model.h_dim,
      16);
}

TEST(Options, UnknownFlagsGetTheNearestName) {
  const std::string report =
      refusal({"--checkpoint_dir", "x", "--batchsize", "8"});
  EXPECT_NE(report.find("unknown flag --batchsize"), std::string::npos);
  EXPECT_NE(report.find("did you mean --batch_size?"), std::string::npos);
  EXPECT_NE(
      refusal({"--checkpoint_dir", "x", "--num-layer=3"})
          .find("did you mean --num_layers?"),
      std::string::npos);
  // No prefixes: --num would be ambiguous, --drop a guess.
  EXPECT_NE(refusal({"--checkpoint_dir", "x", "--drop", "0.1"}), "");
  EXPECT_NE(
      refusal({"--checkpoint_dir", "x", "stray"}).find("\"stray\""),
      std::string::npos);
  EXPECT_NE(refusal({"-z", "--checkpoint_dir", "x"}), "");
}

TEST(Options, WrongValuesAreNamed) {
  EXPECT_NE(
      refusal({"--checkpoint_dir", "x", "--batch_size", "8.5"})
          .find("--batch_size must be a whole number, not \"8.5\""),
      std::string::npos);
  EXPECT_NE(refusal({"--checkpoint_dir", "x", "--dropout", "0,1"}), "");
  EXPECT_NE(
      refusal({"--checkpoint_dir", "x", "--seed", "99999999999999999999"}), "");
  EXPECT_NE(refusal({"--checkpoint_dir", "x", "--batch_size"}), "");
  EXPECT_EQ(
      refusal({"--checkpoint_dir"}), "error: --checkpoint_dir needs a value\n");
}

TEST(Options, ExactlyOneFolder) {
  EXPECT_NE(
      refusal({}).find("Need to specify one of checkpoint_dir or "
                       "load_checkpoint_dir"),
      std::string::npos);
  EXPECT_NE(
      refusal({"--checkpoint_dir", "a", "--load_checkpoint_dir", "b"})
          .find("Cannot specify both checkpoint_dir and "
                "load_checkpoint_dir"),
      std::string::npos);
  EXPECT_EQ(refusal({"--load_checkpoint_dir", "b"}), "");
  EXPECT_EQ(refusal({"--print_config"}), "");
}

TEST(Options, AnEmptyNameIsNoNewRun) {
  const std::vector<Words> commands{
      {"--checkpoint_dir", "a", "--experiment", ""},
      {"--checkpoint_dir", "a", "--load_checkpoint_dir", ""},
      {"--checkpoint_dir", "", "--load_checkpoint_dir", "a"}};
  for (const Words& command : commands) {
    EXPECT_NE(refusal(command).find(" is empty"), std::string::npos);
  }
  EXPECT_EQ(
      refusal({"--checkpoint_dir", "a", "--experiment="}),
      "error: --experiment needs a value\n");
}

TEST(Options, HelpAndVersionNeedNothingElse) {
  EXPECT_EQ(parse({"--version"}).answer, "train_bert 0\n");
  const std::string help = parse({"--help"}).answer;
  EXPECT_EQ(parse({"-h"}).answer, help);
  EXPECT_NE(help.find("\nFolders\n"), std::string::npos);
  EXPECT_NE(help.find("  --learning_rate 0.0001"), std::string::npos);
  EXPECT_NE(help.find("fp32, bf16"), std::string::npos);
  const std::string engine_help = parse_ds({"--help"}).answer;
  Settings settings;
  for (const Setting& field : fields_of(settings)) {
    if (!field.is_flag) {
      EXPECT_EQ(engine_help.find("--" + field.name), std::string::npos);
      continue;
    }
    EXPECT_EQ(
        help.find("  --" + field.name) == std::string::npos, field.engine_only);
    EXPECT_NE(engine_help.find("  --" + field.name), std::string::npos);
  }
  size_t begin = 0;
  for (size_t end = help.find('\n'); end != std::string::npos;
       begin = end + 1, end = help.find('\n', begin)) {
    EXPECT_LE(end - begin, 80u) << help.substr(begin, end - begin);
  }
}

TEST(Resume, TakesStoredValuesAndGivenFlags) {
  Settings stored;
  stored.run.num_iterations = 500;
  stored.optimizer.batch_size = 32;
  stored.model.num_layers = 2;
  const Options options = parse(
      {"--load_checkpoint_dir",
       "x",
       "--learning_rate",
       "5e-5",
       "--num_layers",
       "2",
       "--local_rank",
       "0"});
  const ResumedSettings resumed = resume_settings(stored, options);
  // Not the larger of 500 and the default 10000, as HelloDeepSpeed takes.
  EXPECT_EQ(resumed.settings.run.num_iterations, 500);
  EXPECT_EQ(resumed.settings.optimizer.batch_size, 32);
  EXPECT_EQ(resumed.settings.optimizer.learning_rate, 5e-5);
  EXPECT_EQ(resumed.settings.folders.load_checkpoint_dir, "x");
  EXPECT_EQ(resumed.settings.machine.local_rank, 0);
  ASSERT_EQ(resumed.changes.size(), 1u);
  EXPECT_EQ(resumed.changes[0].name, "learning_rate");
}

TEST(Resume, ATokenizerThatIsKnownByItsHashMayLieElsewhere) {
  Settings stored;
  const Options options =
      parse({"--load_checkpoint_dir", "x", "--tokenizer", "/new/place"});
  EXPECT_THROW(resume_settings(stored, options), Error);
  stored.trained_data.tokenizer_hash = "1";
  EXPECT_EQ(
      resume_settings(stored, options).settings.data.tokenizer, "/new/place");
}

TEST(Resume, RefusesAnotherShape) {
  Settings stored;
  const Options options = parse(
      {"--load_checkpoint_dir",
       "x",
       "--h_dim",
       "512",
       "--tokenizer",
       "other",
       "--dropout",
       "0"});
  try {
    resume_settings(stored, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    EXPECT_NE(
        error.where().find("h_dim: saved 256, given 512"), std::string::npos);
    EXPECT_NE(
        error.where().find("tokenizer: saved roberta-base, given other"),
        std::string::npos);
    EXPECT_EQ(error.where().find("dropout"), std::string::npos);
  }
}

} // namespace
} // namespace deepspeed::settings
