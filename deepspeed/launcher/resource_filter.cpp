// Which slots of which hosts a job uses: --include, --exclude, --num_nodes and
// --num_gpus.
#include "deepspeed/launcher/resource_filter.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

using base::Error;
using base::ExitCode;

namespace {

constexpr const char* kGrammar =
    "NODE[:SLOT[,SLOT...]][@NODE...], for "
    "example worker-0@worker-1:0,2-3";

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// -1 if the text is not a number of at most nine digits.
int parse_number(std::string_view text) {
  int value = -1;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && text.size() <= 9 && text[0] != '-' ? value : -1;
}

using Selection = std::map<std::string, std::vector<int>>;

// Host -> slots, no slots for the whole host. `flag` is for messages.
Selection parse_filter(const std::string& text, const std::string& flag) {
  Selection selection;
  for (const std::string& spec : split(text, '@')) {
    const size_t colon = spec.find(':');
    const std::string host = spec.substr(0, colon);
    if (host.empty()) {
      throw Error(
          ExitCode::usage,
          "a host without a name in '" + text + "'",
          flag,
          kGrammar);
    }
    check_host_name(host, flag);
    std::vector<int>& slots = selection[host];
    if (colon != std::string::npos) {
      const auto more = parse_number_list(spec.substr(colon + 1), flag);
      slots.insert(slots.end(), more.begin(), more.end());
    }
  }
  for (auto& [host, slots] : selection) {
    std::sort(slots.begin(), slots.end());
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  }
  return selection;
}

std::vector<int> all_slots(const Host& host) {
  std::vector<int> slots(static_cast<size_t>(host.slots));
  std::iota(slots.begin(), slots.end(), 0);
  return slots;
}

void check_selection(
    const std::vector<Host>& hosts,
    const Selection& selection,
    const std::string& flag) {
  for (const auto& [name, slots] : selection) {
    const auto host =
        std::find_if(hosts.begin(), hosts.end(), [&, &name = name](auto& h) {
          return h.name == name;
        });
    if (host == hosts.end()) {
      std::vector<std::string> names;
      for (const Host& other : hosts) {
        names.push_back(other.name);
      }
      const std::string nearest = base::nearest_name(name, names);
      throw Error(
          ExitCode::usage,
          "host '" + name + "' is not among the hosts of the job",
          flag,
          "there is " + (nearest.empty() ? names.front() : nearest) +
              (names.size() > 1 && nearest.empty() ? " and others" : ""));
    }
    for (const int slot : slots) {
      if (slot >= host->slots && !host->any_slot) {
        throw Error(
            ExitCode::usage,
            "host '" + name + "' has no slot " + std::to_string(slot),
            flag,
            "its slots are 0 to " + std::to_string(host->slots - 1));
      }
    }
  }
}

std::vector<int> without(
    std::vector<int> slots,
    const std::vector<int>& removed) {
  std::erase_if(slots, [&](int slot) {
    return std::binary_search(removed.begin(), removed.end(), slot);
  });
  return slots;
}

std::vector<Node> select(
    const std::vector<Host>& hosts,
    const ResourceFilter& filter) {
  const bool include = !filter.include.empty();
  const std::string flag = include ? "--include" : "--exclude";
  const Selection selection =
      parse_filter(include ? filter.include : filter.exclude, flag);
  check_selection(hosts, selection, flag);
  std::vector<Node> nodes;
  for (const Host& host : hosts) {
    const auto found = selection.find(host.name);
    std::vector<int> slots;
    if (found == selection.end()) {
      slots = include ? std::vector<int>() : all_slots(host);
    } else if (found->second.empty()) {
      slots = include ? all_slots(host) : std::vector<int>();
    } else {
      slots = include ? found->second : without(all_slots(host), found->second);
    }
    if (!slots.empty()) {
      nodes.push_back({host.name, slots});
    }
  }
  if (nodes.empty()) {
    throw Error(
        ExitCode::usage,
        "no slot is left",
        flag + " " + (include ? filter.include : filter.exclude),
        "leave at least one slot of one host");
  }
  return nodes;
}

void check_counts(
    const std::vector<Host>& hosts,
    const ResourceFilter& filter) {
  for (const auto& [value, flag] :
       {std::pair(filter.num_nodes, "--num_nodes"),
        std::pair(filter.num_gpus, "--num_gpus")}) {
    if (value == 0 || value < -1 || value > kMaxSlots) {
      throw Error(
          ExitCode::usage,
          std::string(flag) + " " + std::to_string(value),
          flag,
          "use 1 to " + std::to_string(kMaxSlots) + ", or leave it out");
    }
  }
  if (filter.num_nodes > static_cast<int>(hosts.size())) {
    throw Error(
        ExitCode::usage,
        "--num_nodes " + std::to_string(filter.num_nodes) + ", but there " +
            (hosts.size() == 1
                 ? "is one host"
                 : "are " + std::to_string(hosts.size()) + " hosts"),
        "--num_nodes",
        "list more hosts in the hostfile (--hostfile)");
  }
}

} // namespace

std::vector<int> parse_number_list(
    const std::string& text,
    const std::string& where) {
  std::vector<int> numbers;
  for (const std::string& part : split(text, ',')) {
    const size_t dash = part.find('-');
    const int first = parse_number(part.substr(0, dash));
    const int last =
        dash == std::string::npos ? first : parse_number(part.substr(dash + 1));
    if (first < 0 || last < first) {
      throw Error(
          ExitCode::usage,
          "'" + part + "' in '" + text + "' is not a number or a range",
          where,
          "write numbers and ranges like 0,2,4-7");
    }
    if (last - first >= kMaxSlots ||
        numbers.size() + static_cast<size_t>(last - first) >= kMaxSlots) {
      throw Error(
          ExitCode::usage,
          "more than " + std::to_string(kMaxSlots) + " numbers in '" + text +
              "'",
          where,
          "");
    }
    for (int number = first; number <= last; ++number) {
      numbers.push_back(number);
    }
  }
  return numbers;
}

std::vector<Node> filter_resources(
    const std::vector<Host>& hosts,
    const ResourceFilter& filter) {
  const bool counted = filter.num_nodes >= 0 || filter.num_gpus >= 0;
  if (!filter.include.empty() && !filter.exclude.empty()) {
    throw Error(
        ExitCode::usage,
        "--include and --exclude do not go together",
        "--include --exclude",
        "name what to use with --include alone");
  }
  if (!filter.include.empty() || !filter.exclude.empty()) {
    if (counted) {
      throw Error(
          ExitCode::usage,
          "--num_nodes and --num_gpus do not go with --include or --exclude",
          "",
          "name hosts and slots with --include alone");
    }
    return select(hosts, filter);
  }
  check_counts(hosts, filter);
  std::vector<Node> nodes;
  for (const Host& host : hosts) {
    if (filter.num_nodes == static_cast<int>(nodes.size())) {
      break;
    }
    Host used = host;
    if (filter.num_gpus > 0) {
      if (filter.num_gpus > host.slots && !host.any_slot) {
        throw Error(
            ExitCode::usage,
            "--num_gpus " + std::to_string(filter.num_gpus) + ", but host '" +
                host.name + "' has " + std::to_string(host.slots),
            "--num_gpus",
            "use at most " + std::to_string(host.slots));
      }
      used.slots = filter.num_gpus;
    }
    nodes.push_back({used.name, all_slots(used)});
  }
  return nodes;
}

} // namespace deepspeed::launcher
