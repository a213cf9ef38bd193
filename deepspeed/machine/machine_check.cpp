// Is this machine fit for training?
#include "deepspeed/machine/machine_check.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <thread>

#include "deepspeed/base/json.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/base/version.h"
#include "deepspeed/machine/system_info.h"

namespace deepspeed::machine {
namespace {

using Status = Check::Status;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;

#if defined(__clang__)
constexpr const char* kCompiler = "clang++ " __clang_version__;
#else
constexpr const char* kCompiler = "g++ " __VERSION__;
#endif

// A check of an amount that should be large.
Check check_amount(
    const std::string& name,
    uint64_t available,
    uint64_t total,
    std::array<uint64_t, 2> fail_and_warn_below,
    const std::string& hint) {
  if (total == 0) {
    return {name, "unknown"};
  }
  Check check{
      name,
      base::format_bytes(available) + " free of " + base::format_bytes(total)};
  if (available < fail_and_warn_below[0]) {
    check.status = Status::fail;
  } else if (available < fail_and_warn_below[1]) {
    check.status = Status::warn;
  }
  check.hint = check.status == Status::ok ? "" : hint;
  return check;
}

Check check_instruction_sets() {
  Check check{"Instruction sets"};
  bool fast = false;
  for (const std::string& name : instruction_sets()) {
    check.value += (check.value.empty() ? "" : " ") + name;
    fast = fast || name == "avx2";
  }
#if defined(__x86_64__)
  if (!fast) {
    check.status = Status::warn;
    check.hint = "without AVX2 training is several times slower";
  }
#endif
  check.value = check.value.empty() ? "none of note" : check.value;
  return check;
}

Check check_cores() {
  const int cores = usable_cores();
  const auto all = std::thread::hardware_concurrency();
  return {"Cores", std::to_string(cores) + " usable of " + std::to_string(all)};
}

Check check_open_files() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  Check check{"Open files", "no limit"};
  if (limit.rlim_cur != RLIM_INFINITY) {
    check.value = base::format_count(static_cast<int64_t>(limit.rlim_cur));
  }
  if (limit.rlim_cur < 256) {
    check.status = Status::warn;
    check.hint = "raise it: ulimit -n 1024";
  }
  return check;
}

const char* name_of(Status status) {
  return status == Status::ok ? "OK" : status == Status::warn ? "WARN" : "FAIL";
}

} // namespace

std::vector<Check> check_machine(const std::string& folder) {
  const MemoryInfo memory = memory_info();
  const DiskInfo disk = disk_info(folder);
  return {
      {"deepspeed.cpp", base::kVersion},
      {"Compiler", kCompiler},
      {"Host", host_name()},
      {"Processor", cpu_model()},
      check_cores(),
      check_instruction_sets(),
      check_amount(
          "Memory",
          memory.available,
          memory.total,
          {512 * kMiB, 2 * kGiB},
          "the default model needs about 2 GiB: end other programs, or use a "
          "smaller --batch_size"),
      check_amount(
          "Disk",
          disk.available,
          disk.total,
          {256 * kMiB, 5 * kGiB},
          "a checkpoint of the default model has 200 MB: free some space, or "
          "use --keep_last 2"),
      check_open_files(),
  };
}

Check check_libtorch(const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    // A wheel has version.py, an unpacked libtorch archive build-version.
    std::ifstream archive(place + "/build-version");
    std::string line;
    if (std::getline(archive, line)) {
      return {"libtorch", line + " in " + place};
    }
    std::ifstream wheel(place + "/version.py");
    while (std::getline(wheel, line)) { // __version__ = '2.15.0+cpu'
      const size_t begin = line.find('\'');
      const size_t end = line.rfind('\'');
      if (line.starts_with("__version__ = ") && begin < end) {
        return {
            "libtorch",
            line.substr(begin + 1, end - begin - 1) + " in " + place};
      }
    }
  }
  return {
      "libtorch",
      "not found",
      Status::warn,
      "run make setup, or set TORCH_ROOT"};
}

std::string checks_text(const std::vector<Check>& checks) {
  size_t width = 0;
  for (const Check& check : checks) {
    width = std::max(width, check.name.size());
  }
  std::string text;
  for (const Check& check : checks) {
    std::string status = name_of(check.status);
    status.resize(6, ' ');
    std::string name = check.name;
    name.resize(width + 2, ' ');
    text += status + name + check.value + "\n";
    if (!check.hint.empty()) {
      text += std::string(8 + width, ' ') + "hint: " + check.hint + "\n";
    }
  }
  return text;
}

std::string checks_json(const std::vector<Check>& checks) {
  base::Json list = base::Json::array();
  for (const Check& check : checks) {
    std::string status = name_of(check.status);
    std::transform(status.begin(), status.end(), status.begin(), [](char c) {
      return static_cast<char>(c + 32); // capitals only
    });
    list.push_back(
        {{"name", check.name},
         {"value", check.value},
         {"status", status},
         {"hint", check.hint}});
  }
  // Names of processors and paths need not be UTF-8.
  return list.dump(2, ' ', false, base::Json::error_handler_t::replace);
}

bool all_good(const std::vector<Check>& checks) {
  return std::none_of(checks.begin(), checks.end(), [](const Check& check) {
    return check.status == Status::fail;
  });
}

} // namespace deepspeed::machine
