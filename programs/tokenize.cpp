// tokenize: each line of text becomes a line of token ids, and back.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "deepspeed/base/error.h"
#include "deepspeed/text/data_lookup.h"
#include "deepspeed/text/tokenizer_lines.h"

namespace {

using namespace deepspeed;

struct Options {
  std::string tokenizer = "roberta-base";
  std::string data_dir;
  bool decode = false;
  bool null = false;
  text::LineOptions lines;
};

// False if there is nothing left to do.
bool parse_arguments(int argc, char** argv, Options& options) {
  CLI::App app(
      "Reads lines of text from standard input and prints a line of token ids\n"
      "for each, with <s> and </s> at the ends.");
  app.add_option("--tokenizer", options.tokenizer, "name or folder")
      ->capture_default_str();
  app.add_option("--data_dir", options.data_dir, "where a name is looked up");
  app.add_flag("--decode", options.decode, "read lines of ids, print text");
  app.add_flag(
      "--skip_special_tokens",
      options.lines.skip_special_tokens,
      "with --decode: leave out <mask> and the like");
  app.add_flag("-0,--null", options.null, "texts end in NUL instead of '\\n'");
  app.allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return false;
  } catch (const CLI::ParseError& error) {
    throw base::Error(base::ExitCode::usage, error.what(), "", "see --help");
  }
  for (const std::string& extra : app.remaining()) {
    const std::string nearest = base::nearest_name(
        extra,
        {"--tokenizer",
         "--data_dir",
         "--decode",
         "--skip_special_tokens",
         "--null",
         "--help"});
    throw base::Error(
        base::ExitCode::usage,
        "unknown argument " + extra,
        "",
        nearest.empty() ? "see --help" : "did you mean " + nearest + "?");
  }
  if (options.lines.skip_special_tokens && !options.decode) {
    throw base::Error(
        base::ExitCode::usage,
        "--skip_special_tokens goes with --decode only",
        "",
        "");
  }
  options.lines.end_of_text = options.null ? '\0' : '\n';
  return true;
}

int run(const Options& options) {
  const auto tokenizer = text::Tokenizer::load(
      text::find_tokenizer(options.tokenizer, options.data_dir));
  const bool is_read = options.decode
      ? text::detokenize_lines(
            *tokenizer, options.lines, STDIN_FILENO, STDOUT_FILENO)
      : text::tokenize_lines(
            tokenizer, options.lines, STDIN_FILENO, STDOUT_FILENO);
  return is_read ? 0 : 128 + SIGPIPE; // as a shell sees any closed pipe
}

} // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return base::run_program([&] {
    Options options;
    return parse_arguments(argc, argv, options) ? run(options) : 0;
  });
}
