// The command line of the training programs.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "deepspeed/settings/settings.h"

namespace deepspeed::settings {

// What a program says about itself in --help and --version.
struct ProgramText {
  std::string name; // train_bert
  std::string summary; // one line
  std::string version; // the whole answer to --version
  Settings defaults; // engine.enabled: the engine's flags are known too
};

struct Options {
  Settings settings;
  // Names of the settings that were on the command line.
  std::set<std::string> given;
  // The answer to --help or --version: print it to standard output and exit 0.
  // Empty otherwise.
  std::string answer;
};

// Reads the arguments that follow the program's name. As Python Fire does:
// `--flag value`, `--flag=value`, `-` and `_` alike in names; the last of
// several values counts. Booleans: --flag, --no_flag, --flag false.
//
// Error(usage) for an unknown flag (with the nearest name), a value of the
// wrong type, or not exactly one of checkpoint_dir and load_checkpoint_dir.
// The values are not validated: see validate().
Options parse_options(
    const std::vector<std::string>& arguments,
    const ProgramText& program);

// The text of --help: all settings in groups, with defaults.
std::string help_text(const ProgramText& program);

// What a run goes on with.
struct ResumedSettings {
  Settings settings;
  std::vector<SettingChange> changes; // against hparams.json
};

// The settings of a resumed run: those of hparams.json, and in their place the
// flags that were given. Error(config) if a given flag contradicts the shape of
// the stored model; it lists field, saved value and given value.
ResumedSettings resume_settings(const Settings& stored, const Options& options);

} // namespace deepspeed::settings
