// What the configuration and the program say of the same thing.
#include "deepspeed/base/error.h"
#include "deepspeed/engine/state.h"

namespace deepspeed {
namespace {

base::Error setting_error(const std::string& what, const std::string& hint) {
  return base::Error(base::ExitCode::config, what, "", hint);
}

} // namespace

void check_settings(const EngineState& state) {
  const config::Config& config = state.config;
  const int64_t batch = config.train_micro_batch_size_per_gpu *
      config.gradient_accumulation_steps * state.ranks->size();
  if (config.train_batch_size != batch) {
    throw setting_error(
        "train_batch_size " + std::to_string(config.train_batch_size) +
            " is not " + std::to_string(config.train_micro_batch_size_per_gpu) +
            " (micro batch) x " +
            std::to_string(config.gradient_accumulation_steps) +
            " (accumulation) x " + std::to_string(state.ranks->size()) +
            " (ranks)",
        "parse_config() with Context::world_size " +
            std::to_string(state.ranks->size()) +
            ", or initialize() with the Json or the file");
  }
  if (!state.options.learning_rate) {
    return;
  }
  if (config.scheduler.type != config::SchedulerType::none) {
    throw setting_error(
        "the program sets the learning rate (InitializeOptions), and the "
        "configuration has a scheduler",
        "leave out one of them");
  }
  for (const ParamGroup& group : state.options.param_groups) {
    if (group.lr) {
      throw setting_error(
          "the program sets the learning rate of all groups "
          "(InitializeOptions), and that of one group (ParamGroup)",
          "leave out one of them");
    }
  }
}

} // namespace deepspeed
