// The hosts of a job and how many ranks each takes.
#include "deepspeed/launcher/hostfile.h"

#include <algorithm>
#include <regex>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

using base::Error;
using base::ExitCode;

namespace {

// What a terminal would not show, as \xEF.
std::string printable(std::string_view text) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  std::string shown;
  for (const unsigned char c : text) {
    if (c >= ' ' && c < 0x7f) {
      shown += static_cast<char>(c);
    } else {
      shown += {'\\', 'x', kDigits[c >> 4], kDigits[c & 15]};
    }
  }
  return shown;
}

Host parse_line(const std::string& line, const std::string& where) {
  // DeepSpeed's pattern is ^(\S+)\s+slots=(\d+) and ignores what follows.
  static const std::regex pattern(
      R"((\S+)\s+slots=([0-9]+)(\s+max[-_]slots=[0-9]+)?\s*(#.*)?)");
  std::smatch match;
  if (line.size() > 4096 || !std::regex_match(line, match, pattern)) {
    throw Error(
        ExitCode::usage,
        "bad entry in the hostfile: " + printable(line.substr(0, 200)),
        where,
        "write one host a line, like: worker-0 slots=4");
  }
  Host host{.name = match[1].str()};
  check_host_name(host.name, where);
  const std::string digits = match[2].str();
  host.slots = digits.size() > 9 ? kMaxSlots + 1 : std::stoi(digits);
  if (host.slots < 1 || host.slots > kMaxSlots) {
    throw Error(
        ExitCode::usage,
        "host " + host.name + " has slots=" + digits.substr(0, 40),
        where,
        "use 1 to " + std::to_string(kMaxSlots) +
            " slots, or take the line out");
  }
  return host;
}

} // namespace

void check_host_name(std::string_view name, const std::string& where) {
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
  if (!name.empty() && name.size() <= 253 && plain && name[0] != '-') {
    return;
  }
  const bool address = name.find(':') != std::string_view::npos;
  throw Error(
      ExitCode::usage,
      "not a host name: '" + printable(name.substr(0, 200)) + "'",
      where,
      address ? "give the address a name in /etc/hosts or ~/.ssh/config: a "
                "colon separates slots here"
              : "letters, digits, '.', '_' and '-', not starting with '-'");
}

std::vector<Host> parse_hostfile(
    std::string_view text,
    const std::string& path) {
  std::vector<Host> hosts;
  int number = 0;
  if (text.starts_with("\xEF\xBB\xBF")) {
    throw Error(
        ExitCode::usage,
        "the hostfile starts with a byte-order mark, which editors do not show",
        path + ":1",
        "take it out: sed -i '1s/^\\xEF\\xBB\\xBF//' " + path);
  }
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string where = path + ":" + std::to_string(++number);
    if (line.ends_with('\r')) {
      throw Error(
          ExitCode::usage,
          "the hostfile has Windows line ends (CR LF)",
          where,
          "convert it: sed -i 's/\\r$//' " + path);
    }
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string::npos || line[first] == '#') {
      continue;
    }
    Host host = parse_line(line.substr(first), where);
    for (const Host& other : hosts) {
      if (other.name == host.name) {
        throw Error(
            ExitCode::usage,
            "the hostfile has several entries for " + host.name,
            where,
            "add the slots up in one line");
      }
    }
    hosts.push_back(std::move(host));
  }
  if (hosts.empty()) {
    throw Error(
        ExitCode::usage,
        "the hostfile names no host",
        path,
        "write one host a line, like: worker-0 slots=4");
  }
  return hosts;
}

} // namespace deepspeed::launcher
