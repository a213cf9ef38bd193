// Is this machine fit for training?
#pragma once

#include <string>
#include <vector>

namespace deepspeed::machine {

struct Check {
  enum class Status { ok, warn, fail };

  std::string name;
  std::string value = {};
  Status status = Status::ok;
  std::string hint = {}; // what to do about it, unless ok
};

// Version, compiler, processor, memory, disk at `folder`, shared memory, limit
// of open files.
std::vector<Check> check_machine(const std::string& folder);

// The version of the libtorch that lies in one of `places`, read from its text
// files: the library is not loaded.
Check check_libtorch(const std::vector<std::string>& places);

// One line for each check: "OK    Memory  3.1 GiB of 8.0 GiB", then its hint.
std::string checks_text(const std::vector<Check>& checks);

// [{"name": ..., "value": ..., "status": "ok|warn|fail", "hint": ...}, ...]
std::string checks_json(const std::vector<Check>& checks);

// Whether no check failed.
bool all_good(const std::vector<Check>& checks);

} // namespace deepspeed::machine
