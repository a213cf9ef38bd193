// The frame of the training programs.
#pragma once

#include <functional>
#include <string>

#include "deepspeed/pretrain/run.h"

namespace deepspeed::pretrain {

// Reads the command line, answers --help, --version and --print_config, and
// hands a Run to `train`. Returns the exit code; errors are reported.
int run_training_program(
    int argc,
    char** argv,
    const std::string& summary, // one line for --help
    const settings::Settings& defaults,
    const std::function<int(Run&)>& train);

} // namespace deepspeed::pretrain
