// The command line of the training programs.
#include "deepspeed/settings/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;

constexpr size_t kHelpWidth = 80;

// "--batch-size=a-b" -> "--batch_size=a-b": the name only, not the value.
std::string with_underscores(std::string argument) {
  if (argument.starts_with("--") && argument.size() > 2) {
    const size_t end = std::min(argument.find('='), argument.size());
    std::replace(argument.begin() + 2, argument.begin() + end, '-', '_');
  }
  return argument;
}

// Reads a command-line value into a field; returns what was expected if it is
// not that.
struct Assign {
  const std::string& text;

  template <typename Number>
  bool parse(Number* to) const {
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, *to);
    return result.ec == std::errc() && result.ptr == end;
  }
  const char* operator()(int64_t* to) const {
    return parse(to) ? nullptr : "a whole number";
  }
  const char* operator()(double* to) const {
    return parse(to) ? nullptr : "a number";
  }
  const char* operator()(bool* to) const {
    std::string lower = text;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    });
    *to = lower.empty() || lower == "true" || lower == "1";
    return *to || lower == "false" || lower == "0" ? nullptr : "true or false";
  }
  const char* operator()(std::string* to) const {
    *to = text;
    return nullptr;
  }
};

bool is_switch(const Setting& field) {
  return std::holds_alternative<bool*>(field.value);
}

[[noreturn]] void refuse(
    const std::string& what,
    const std::string& where,
    const std::string& hint) {
  throw Error(ExitCode::usage, what, where, hint);
}

[[noreturn]] void refuse_argument(
    const std::string& argument,
    const std::vector<Setting>& fields,
    const ProgramText& program) {
  const std::string help = program.name + " --help lists all flags";
  if (!argument.starts_with("-")) {
    refuse("unexpected argument \"" + argument + "\"", "", help);
  }
  const std::string flag = argument.substr(0, argument.find('='));
  std::vector<std::string> flags{"--help", "--version"};
  for (const Setting& field : fields) {
    flags.push_back("--" + field.name);
  }
  const std::string nearest = base::nearest_name(flag, flags);
  refuse(
      "unknown flag " + flag,
      "",
      nearest.empty() ? help : "did you mean " + nearest + "?");
}

// As from a variable of the shell that is not set: another run would begin.
void check_names(const Options& options) {
  const FolderSettings& folders = options.settings.folders;
  const std::pair<const char*, const std::string*> names[] = {
      {"checkpoint_dir", &folders.checkpoint_dir},
      {"load_checkpoint_dir", &folders.load_checkpoint_dir},
      {"experiment", &folders.experiment}};
  for (const auto& [name, value] : names) {
    if (options.given.contains(name) && value->empty()) {
      refuse(
          std::string("--") + name + " is empty",
          "",
          "leave it out, or look at the variable that it is taken from");
    }
  }
}

void check_folders(const Settings& settings, const ProgramText& program) {
  const bool start = !settings.folders.checkpoint_dir.empty();
  const bool go_on = !settings.folders.load_checkpoint_dir.empty();
  if (start && go_on) {
    refuse(
        "Cannot specify both checkpoint_dir and load_checkpoint_dir",
        "--checkpoint_dir " + settings.folders.checkpoint_dir +
            "  --load_checkpoint_dir " + settings.folders.load_checkpoint_dir,
        "--checkpoint_dir starts a new run, --load_checkpoint_dir goes on");
  }
  const std::string& name = settings.folders.experiment;
  if (!name.empty() && !start) {
    refuse(
        "--experiment " + name + " needs --checkpoint_dir, its parent",
        "",
        "--load_checkpoint_dir takes the whole path of an experiment");
  }
  if (!name.empty() && !checkpoint::is_tag(name)) {
    refuse(
        "experiment must be a plain name, not \"" + name + "\"",
        "--experiment",
        "use letters, digits, '.', '_' and '-', at most 128");
  }
  // Nothing is written with these two.
  const bool writes =
      !settings.machine.print_config && !settings.machine.dry_run;
  if (!start && !go_on && writes) {
    refuse(
        "Need to specify one of checkpoint_dir or load_checkpoint_dir",
        "",
        program.name + " --checkpoint_dir ./experiments");
  }
}

// CLI11's view of the flags: every value is text, read by Assign later.
class Parser {
 public:
  explicit Parser(const std::vector<Setting>& fields) {
    app_.set_help_flag();
    app_.allow_extras();
    app_.add_flag("-h,--help", help);
    app_.add_flag("--version", version);
    for (const Setting& field : fields) {
      CLI::Option* option = app_.add_option("--" + field.name, field.help);
      option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      if (is_switch(field)) {
        option->expected(0, 1);
        app_.add_flag("--no_" + field.name)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      }
    }
  }

  void parse(const std::vector<std::string>& arguments) {
    std::vector<std::string> reversed; // as CLI11 takes them
    for (const std::string& argument : arguments) {
      reversed.insert(reversed.begin(), with_underscores(argument));
    }
    try {
      app_.parse(reversed);
    } catch (const CLI::ArgumentMismatch& error) {
      const std::string what = error.what(); // "--h_dim: 1 required  missing"
      refuse(what.substr(0, what.find(':')) + " needs a value", "", "");
    } catch (const CLI::ParseError& error) {
      refuse(error.what(), "", "");
    }
  }

  std::vector<std::string> unknown() const {
    return app_.remaining();
  }
  size_t count(const std::string& flag) const {
    return app_.count(flag);
  }
  std::string value(const std::string& flag) const {
    const auto results = app_.get_option(flag)->results();
    return results.empty() ? "" : results.back();
  }

  bool help = false;
  bool version = false;

 private:
  CLI::App app_;
};

void assign_fields(
    const Parser& parser,
    const std::vector<Setting>& fields,
    std::set<std::string>& given) {
  for (const Setting& field : fields) {
    const std::string flag = "--" + field.name;
    if (is_switch(field) && parser.count("--no_" + field.name) > 0) {
      if (parser.count(flag) > 0) {
        refuse(
            "both " + flag + " and --no_" + field.name + " are given", "", "");
      }
      *std::get<bool*>(field.value) = false;
      given.insert(field.name);
      continue;
    }
    if (parser.count(flag) == 0) {
      continue;
    }
    const std::string text = parser.value(flag);
    const char* expected = std::visit(Assign{text}, field.value);
    if (expected != nullptr) {
      refuse(flag + " must be " + expected + ", not \"" + text + "\"", "", "");
    }
    given.insert(field.name);
  }
}

// The flags that a program knows.
std::vector<Setting> flags_of(Settings& settings) {
  std::vector<Setting> fields = fields_of(settings);
  std::erase_if(fields, [&](const Setting& field) {
    return !field.is_flag || (field.engine_only && !settings.engine.enabled);
  });
  return fields;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

// `left`, and `help` in a column of its own, wrapped at kHelpWidth.
std::string help_line(
    const std::string& left,
    size_t column,
    const std::string& help) {
  std::string text;
  std::string line = padded(left, column - 1);
  std::istringstream words(help);
  for (std::string word; words >> word;) {
    if (line.size() + 1 + word.size() > kHelpWidth) {
      text += line + "\n";
      line = std::string(column - 1, ' ');
    }
    line += " " + word;
  }
  return text + line + "\n";
}

// "--batch_size 8": the flag with its default.
std::string flag_text(const Setting& field) {
  const std::string value = value_text(field);
  const std::string flag = "  --" + field.name;
  return is_switch(field) ? flag
                          : flag + " " + (value.empty() ? "TEXT" : value);
}

} // namespace

Options parse_options(
    const std::vector<std::string>& arguments,
    const ProgramText& program) {
  Options options;
  options.settings = program.defaults;
  const std::vector<Setting> fields = flags_of(options.settings);
  Parser parser(fields);
  parser.parse(arguments);
  if (parser.help || parser.version) {
    options.answer = parser.help ? help_text(program) : program.version;
    if (!options.answer.ends_with("\n")) {
      options.answer += "\n";
    }
    return options;
  }
  for (const std::string& argument : parser.unknown()) {
    refuse_argument(argument, fields, program);
  }
  assign_fields(parser, fields, options.given);
  check_names(options);
  check_folders(options.settings, program);
  return options;
}

std::string help_text(const ProgramText& program) {
  Settings defaults = program.defaults;
  const std::vector<Setting> fields = flags_of(defaults);
  size_t column = 0;
  for (const Setting& field : fields) {
    column = std::max(column, flag_text(field).size() + 2);
  }
  std::vector<std::string> headings{"Folders"};
  std::map<std::string, std::string> groups;
  for (const Setting& field : fields) {
    if (!groups.contains(field.group) && field.group != headings[0]) {
      headings.push_back(field.group);
    }
    std::string help;
    for (const std::string& choice : field.choices) {
      help += (help.empty() ? "" : ", ") + choice;
    }
    help += (help.empty() ? "" : "; ") + field.help;
    groups[field.group] += help_line(flag_text(field), column, help);
  }
  std::string text = program.name + ": " + program.summary +
      "\n\nusage: " + program.name + " --checkpoint_dir DIR [flags]\n       " +
      program.name +
      " --load_checkpoint_dir EXPERIMENT [flags]\n\n"
      "Flags are shown with their defaults. --flag VALUE and --flag=VALUE, "
      "- and _ mean\nthe same; a switch is turned off by --no_flag.\n";
  for (const std::string& heading : headings) {
    text += "\n" + heading + "\n" + groups[heading];
  }
  return text + "\nOther\n" +
      help_line("  -h, --help", column, "print this text") +
      help_line("  --version", column, "print versions");
}

ResumedSettings resume_settings(
    const Settings& stored,
    const Options& options) {
  ResumedSettings resumed{stored, {}};
  resumed.settings.folders = options.settings.folders;
  Settings given = options.settings;
  const std::vector<Setting> to = fields_of(resumed.settings);
  const std::vector<Setting> from = fields_of(given);
  std::string contradictions;
  for (size_t i = 0; i < to.size(); ++i) {
    const bool momentary = !to[i].stored;
    if (!momentary && !options.given.contains(to[i].name)) {
      continue;
    }
    const std::string saved = value_text(to[i]);
    const std::string wanted = value_text(from[i]);
    // A tokenizer that is known by its hash may lie elsewhere.
    const bool compared_later = to[i].name == "tokenizer" &&
        !stored.trained_data.tokenizer_hash.empty();
    if (to[i].shapes_model && saved != wanted && !compared_later) {
      contradictions += (contradictions.empty() ? "" : "\n  ") + to[i].name +
          ": saved " + saved + ", given " + wanted;
    }
    std::visit(
        [&](auto* target) {
          *target = *std::get<decltype(target)>(from[i].value);
        },
        to[i].value);
  }
  if (!contradictions.empty()) {
    throw Error(
        ExitCode::config,
        "the saved model has another shape than the flags ask for",
        contradictions,
        "leave these flags out, or start a new run with --checkpoint_dir");
  }
  resumed.changes = differences(stored, resumed.settings);
  return resumed;
}

} // namespace deepspeed::settings
