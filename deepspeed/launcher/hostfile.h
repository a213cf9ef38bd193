// The hosts of a job and how many ranks each takes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepspeed::launcher {

// More ranks on one host are a typing error.
inline constexpr int kMaxSlots = 4096;

struct Host {
  std::string name;
  int slots = 0;
  // True for a host without GPUs that no hostfile describes: a slot is a share
  // of its cores, so every slot number is good.
  bool any_slot = false;
};

// Error(usage) unless the name is made of [A-Za-z0-9._-] and does not start
// with '-', which ssh would take for an option. A colon separates slots in
// --include, so IPv6 addresses need a name. `where` is a file:line or a flag.
void check_host_name(std::string_view name, const std::string& where);

// One host a line: "NAME slots=N". Blank lines and lines that start with '#'
// are skipped; after the number only "# comment" and "max_slots=N" may follow.
// Error(usage) with path:line for everything else, for a host that comes twice,
// for slots outside 1..kMaxSlots and for lines that end with CR LF.
std::vector<Host> parse_hostfile(
    std::string_view text,
    const std::string& path);

} // namespace deepspeed::launcher
