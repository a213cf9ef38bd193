// The choice of the instruction set, on top of Highway's dispatch.
#include "deepspeed/kernels/isa.h"

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/dispatch.h"

#include <cstdint>
#include <cstdlib>
#include <utility>

namespace deepspeed::kernels {
namespace {

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

// Targets that were compiled and that this machine runs, best (lowest) first.
const std::vector<int64_t>& targets() {
  static const std::vector<int64_t> list = [] {
    hwy::SetSupportedTargetsForTest(0);
    return hwy::SupportedAndGeneratedTargets();
  }();
  return list;
}

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
  for (const int64_t target : targets()) {
    if (name_of(target) == name) {
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      return;
    }
  }
  fail(name, where);
}

} // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const int64_t target : targets()) {
    names.push_back(name_of(target));
  }
  return names;
}

void choose_isa() {
  static const bool chosen = [] {
    const char* name = std::getenv("DS_CPU_ISA");
    use(name != nullptr && *name != '\0' ? name : available_isas().front(),
        "environment variable DS_CPU_ISA");
    return true;
  }();
  (void)chosen;
}

std::string active_isa() {
  choose_isa();
  for (const int64_t target : targets()) {
    if ((hwy::SupportedTargets() & target) != 0) {
      return name_of(target);
    }
  }
  return name_of(HWY_STATIC_TARGET);
}

void force_isa(const std::string& name) {
  choose_isa();
  use(name, "force_isa");
}

} // namespace deepspeed::kernels
