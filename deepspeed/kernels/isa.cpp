// The choice of the instruction set, on top of Highway's dispatch.
#include "deepspeed/kernels/isa.h"

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/dispatch.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace deepspeed::kernels {

bool rounds_in_hardware = false; // set by choose_isa()

namespace {

// One of Highway's targets, and what this machine has beyond it.
struct Isa {
  std::string name;
  int64_t target = 0;
  bool rounds = false; // by vcvtneps2bf16
  bool pairs = false; // products by vdpbf16ps
  bool tiles = false; // products by tdpbf16ps
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

#if defined(__x86_64__)
// Linux saves the tile registers only of processes that asked for them
// (Documentation/arch/x86/xstate.rst).
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023; // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return __builtin_cpu_supports("amx-bf16") &&
      ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

// Those that were compiled and that this machine runs, best first.
const std::vector<Isa>& isas() {
  static const std::vector<Isa> list = [] {
    std::vector<Isa> found;
    hwy::SetSupportedTargetsForTest(0);
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
#if defined(__x86_64__)
      if (target == HWY_AVX3 && __builtin_cpu_supports("avx512bf16")) {
        if (may_use_tiles()) {
          found.push_back({"amx", target, true, false, true});
        }
        found.push_back({"avx512_bf16", target, true, true, false});
      }
#endif
      found.push_back({name_of(target), target});
    }
#if defined(__x86_64__)
    // vdpbf16ps takes Intel's processors twice as long as a multiply-add.
    if (__builtin_cpu_is("intel")) {
      const auto is_slow = [](const Isa& isa) { return isa.pairs; };
      const auto slow = std::find_if(found.begin(), found.end(), is_slow);
      if (slow != found.end()) {
        std::iter_swap(slow, slow + 1); // with avx512
      }
    }
#endif
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
      rounds_in_hardware = isa.rounds;
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
  return chosen().pairs;
}

bool has_tiles() {
  return chosen().tiles;
}

void force_isa(const std::string& name) {
  choose_isa();
  use(name, "force_isa");
}

} // namespace deepspeed::kernels
