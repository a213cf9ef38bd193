// The settings of train_bert_ds and the engine's configuration, which say some
// things twice.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "deepspeed/config/config.h"
#include "deepspeed/settings/settings.h"

namespace deepspeed::pretrain {

// The file of --deepspeed_config with its "auto" values taken from the flags;
// without a file HelloDeepSpeed's dictionary with what the flags change.
// Error(config) if a flag of `given` says something else than the file.
config::Config engine_config(
    const settings::Settings& settings,
    const std::set<std::string>& given,
    int64_t ranks);

// What differs between two configurations, each as config::print_config() has
// it, besides what the settings and the engine itself tell of:
// "fp16.hysteresis". A key that only one of them knows counts in optimizer and
// scheduler alone, so that keys of a later version are no change.
std::vector<settings::SettingChange> config_changes(
    const std::string& saved,
    const std::string& now);

// Takes over what the configuration decides: batch, accumulation, optimizer,
// clipping, dtype, stage.
void adopt_config(const config::Config& config, settings::Settings& settings);

} // namespace deepspeed::pretrain
