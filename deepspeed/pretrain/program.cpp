// The frame of the training programs.
#include "deepspeed/pretrain/program.h"

#include <torch/version.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "deepspeed/base/error.h"
#include "deepspeed/base/version.h"
#include "deepspeed/comm/rank_info.h"
#include "deepspeed/machine/stop_signal.h"
#include "deepspeed/settings/hparams.h"

namespace deepspeed::pretrain {
namespace {

// An error that all ranks share is told once, by rank 0: when it has ended, its
// launcher stops the others, which wait so long. Returns whether this rank has
// to tell of its own. Shorter than the launcher waits for the reason of a
// failure.
bool has_to_tell() {
  constexpr auto kPatience = std::chrono::milliseconds(450);
  int64_t rank = 0;
  try {
    rank = comm::rank_from_environment().rank;
  } catch (const base::Error&) {
  }
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (rank != 0 && machine::stop_signal() == 0 &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return rank == 0 || machine::stop_signal() == 0;
}

// A reader that has seen enough is no error; a full disk is.
int answer(const std::string& text) {
  const bool written =
      std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  if (!written && errno != EPIPE) {
    throw base::system_error(
        base::ExitCode::io, "cannot write", "standard output", errno);
  }
  return 0;
}

} // namespace

int run_training_program(
    int argc,
    char** argv,
    const std::string& summary,
    const settings::Settings& defaults,
    const std::function<int(Run&)>& train) {
  const auto program = [&] {
    settings::ProgramText text;
    text.name = std::filesystem::path(argv[0]).filename().string();
    text.summary = summary;
    text.defaults = defaults;
    text.version = text.name + " " + std::string(base::kVersion) +
        ", libtorch " TORCH_VERSION ", g++ " __VERSION__ "\n";
    const settings::Options options =
        settings::parse_options({argv + 1, argv + argc}, text);
    if (!options.answer.empty()) {
      return answer(options.answer);
    }
    if (options.settings.machine.print_config) {
      return answer(print_config(options));
    }
    Run run(options);
    return train(run);
  };
  // oneDNN keeps the scratch memory of the last 1,024 shapes it has seen, and
  // packed batches have new shapes in every step: gigabytes of it in bf16.
  ::setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16", /*overwrite=*/0);
  return base::run_program([&] {
    try {
      return program();
    } catch (const base::Error& error) {
      if (!has_to_tell()) {
        return static_cast<int>(error.code());
      }
      throw;
    }
  });
}

} // namespace deepspeed::pretrain
