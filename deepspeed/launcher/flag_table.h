// The flags of `deepspeed`: names, help, and what they set.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deepspeed/launcher/launch_options.h"

namespace deepspeed::launcher {

struct Flag {
  // Stores the value that was given to the flag. Error(usage).
  using Set = std::function<void(
      LaunchOptions& options,
      const std::string& flag,
      const std::string& value)>;

  std::vector<std::string> names; // with '_' for '-'
  std::string value; // its name in --help; "" for a flag without a value
  std::string help;
  Set set;
};

// A section of --help; without a title: flags that are refused.
struct FlagSection {
  std::string title;
  std::vector<Flag> flags;
};

std::vector<FlagSection> flag_table();

} // namespace deepspeed::launcher
