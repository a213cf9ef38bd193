// The choice of the instruction set, on top of Highway's dispatch.
#include "deepspeed/kernels/isa.h"

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/dispatch.h"

#include <cstdint>
#include <cstdlib>
#include <utility>

namespace deepspeed::kernels {
namespace {

// One of Highway's targets, and what this machine has beyond it.
struct Isa {
  std::string name;
  int64_t target = 0;
  bool bfloat16 = false;
  bool tiles = false;
};

std::string name_of(int64_t target) {
  switch (target) {
    case HWY_AVX3:
      return "avx512";
    case HWY_AVX2:
      return "avx2";
    case HWY_NEON:
      return "neon";
    default:
      return "scalar";
  }
}

// Those that were compiled and that this machine runs, best first.
const std::vector<Isa>& isas() {
  static const std::vector<Isa> list = [] {
    std::vector<Isa> found;
    hwy::SetSupportedTargetsForTest(0);
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
#if defined(__x86_64__)
      if (target == HWY_AVX3 && __builtin_cpu_supports("avx512bf16")) {
        if (__builtin_cpu_supports("amx-bf16")) {
          found.push_back({"amx", target, true, true});
        }
        found.push_back({"avx512_bf16", target, true, false});
      }
#endif
      found.push_back({name_of(target), target, false, false});
    }
    return found;
  }();
  return list;
}

const Isa* active = nullptr; // set by choose_isa()

[[noreturn]] void fail(const std::string& name, const std::string& where) {
  std::string known;
  for (const std::string& isa : available_isas()) {
    known += (known.empty() ? "" : ", ") + isa;
  }
  throw base::Error(
      base::ExitCode::usage,
      "no CPU kernels for instruction set \"" + name + "\"",
      where,
      "this machine can use: " + known);
}

void use(const std::string& name, const std::string& where) {
  for (const Isa& isa : isas()) {
    if (isa.name == name) {
      hwy::SetSupportedTargetsForTest(isa.target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      active = &isa;
      return;
    }
  }
  fail(name, where);
}

const Isa& chosen() {
  choose_isa();
  return *active;
}

} // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : isas()) {
    names.push_back(isa.name);
  }
  return names;
}

void choose_isa() {
  static const bool done = [] {
    const char* name = std::getenv("DS_CPU_ISA");
    use(name != nullptr && *name != '\0' ? name : available_isas().front(),
        "environment variable DS_CPU_ISA");
    return true;
  }();
  (void)done;
}

std::string active_isa() {
  return chosen().name;
}

bool multiplies_bfloat16() {
  return chosen().bfloat16;
}

bool has_tiles() {
  return chosen().tiles;
}

void force_isa(const std::string& name) {
  choose_isa();
  use(name, "force_isa");
}

} // namespace deepspeed::kernels
