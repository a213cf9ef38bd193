// The frame of the training programs.
#include "deepspeed/pretrain/program.h"

#include <torch/version.h>

#include <cstdio>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/version.h"
#include "deepspeed/report/hparams.h"

namespace deepspeed::pretrain {

int run_training_program(
    int argc,
    char** argv,
    const std::string& summary,
    const report::Settings& defaults,
    const std::function<int(Run&)>& train) {
  return base::run_program([&] {
    report::ProgramText text;
    text.name = std::filesystem::path(argv[0]).filename().string();
    text.summary = summary;
    text.defaults = defaults;
    text.version = text.name + " " + std::string(base::kVersion) +
        ", libtorch " TORCH_VERSION ", g++ " __VERSION__ "\n";
    const report::Options options =
        report::parse_options({argv + 1, argv + argc}, text);
    if (!options.answer.empty()) {
      std::fputs(options.answer.c_str(), stdout);
      return 0;
    }
    if (options.settings.machine.print_config) {
      std::fputs(print_config(options).c_str(), stdout);
      return 0;
    }
    Run run(options);
    return train(run);
  });
}

} // namespace deepspeed::pretrain
