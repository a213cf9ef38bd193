// hparams.json: the settings of an experiment, in HelloDeepSpeed's format.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/settings/settings.h"

namespace deepspeed::settings {

// The stored settings as Python's json.dump(..., indent=2) prints them:
// HelloDeepSpeed's 13 keys first, in its order, then ours.
std::string to_hparams(const Settings& settings);

// The same with two keys more: "as_written", all of them once again, and a
// checksum of that, so that a change of the file by hand, or by a fault of the
// disk, is seen.
std::string to_hparams_file(const Settings& settings);

// The settings of such a text. A missing key keeps its value of `defaults`, so
// a file of the Python program is complete; but without `balance_batches` that
// is false, as it was before this key. Error(data) names the key and the
// value for a wrong type, and the nearest name for an unknown key. `source` is
// shown in messages. The values are not validated: see validate().
Settings parse_hparams(
    std::string_view text,
    const std::string& source,
    const Settings& defaults = {});

// What differs from "as_written", if the text has that; where both copies were
// changed alike, the checksum.
std::vector<SettingChange> changes_by_hand(
    std::string_view text,
    const std::string& source,
    const Settings& defaults = {});

// Reads a file of at most 1 MiB, and says on standard error what was changed by
// hand. Error(no_input) if there is none.
Settings read_hparams(const std::string& path, const Settings& defaults = {});

} // namespace deepspeed::settings
