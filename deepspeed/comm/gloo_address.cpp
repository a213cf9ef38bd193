// The addresses at which the ranks meet over Gloo.
#include "deepspeed/comm/gloo_address.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/comm/host_name.h"
#include "deepspeed/comm/rendezvous.h"

namespace deepspeed::comm {
namespace {

using base::Error;
using base::ExitCode;
using base::Json;

// What a rank tells about itself.
struct RankAddress {
  std::string host; // its name
  std::string own; // towards rank 0
  std::string master; // at which it reached rank 0
  std::string failure; // why it has no address
};

std::string to_json(const RankAddress& one) {
  return Json({one.host, one.own, one.master, one.failure}).dump();
}

RankAddress from_json(const std::string& text) {
  const Json json = Json::parse(text);
  return {json.at(0), json.at(1), json.at(2), json.at(3)};
}

// "" without GLOO_SOCKET_IFNAME.
std::string chosen_address() {
  const char* const name = std::getenv("GLOO_SOCKET_IFNAME");
  if (name == nullptr || *name == '\0') {
    return "";
  }
  if (std::string(name) == "lo") {
    return kLoopback;
  }
  std::string others;
  for (const InterfaceAddress& one : interface_addresses()) {
    if (one.interface == name) {
      return one.address;
    }
    others += " " + one.interface + " (" + one.address + ")";
  }
  throw Error(
      ExitCode::config,
      "no address of the interface GLOO_SOCKET_IFNAME=" + std::string(name),
      "environment of host " + host_name(),
      "there are: lo" + others);
}

bool is_outside(const std::string& address) {
  return !address.empty() && !is_loopback(address);
}

// Of a rank that has only a loopback address towards rank 0, so that it runs on
// the same host: the address by which the others come to that host.
std::string address_of_master_host(
    const std::vector<RankAddress>& ranks,
    int own_rank) {
  std::vector<std::string> reached;
  for (const RankAddress& one : ranks) {
    if (is_outside(one.master) && is_own_address(one.master) &&
        std::find(reached.begin(), reached.end(), one.master) ==
            reached.end()) {
      reached.push_back(one.master);
    }
  }
  const std::vector<InterfaceAddress> interfaces = interface_addresses();
  const bool alone =
      std::none_of(ranks.begin(), ranks.end(), [](const RankAddress& one) {
        return is_outside(one.own);
      });
  if (reached.empty()) {
    return alone || interfaces.empty() ? kLoopback : interfaces[0].address;
  }
  if (reached.size() > 1 && own_rank == 0) {
    base::log_warning(
        "rank 0 is reached at " + reached[0] + " and at " + reached[1] +
        ": Gloo takes the first; GLOO_SOCKET_IFNAME chooses the interface");
  }
  return reached[0];
}

// "10.0.0.1 (h1), 10.0.0.2 (h2)": each once, in the order of ranks.
std::string list_of(const std::vector<RankAddress>& ranks) {
  constexpr size_t kShown = 16;
  std::vector<std::string> entries;
  for (const RankAddress& one : ranks) {
    const std::string entry = one.own + " (" + one.host + ")";
    if (std::find(entries.begin(), entries.end(), entry) == entries.end()) {
      entries.push_back(entry);
    }
  }
  std::string text;
  for (size_t i = 0; i < std::min(kShown, entries.size()); ++i) {
    text += (i == 0 ? "" : ", ") + entries[i];
  }
  return entries.size() <= kShown
      ? text
      : text + " and " + std::to_string(entries.size() - kShown) + " more";
}

// All ranks listen, each connects to each: a firewall may stop one direction.
void require_connections(
    const RankInfo& rank_info,
    const std::vector<RankAddress>& ranks,
    Rendezvous& rendezvous) {
  constexpr std::chrono::seconds kPatience{15}; // for an answer that got lost
  const RankAddress& own = ranks[static_cast<size_t>(rank_info.rank)];
  const Socket listener = listen_at(own.own, 0);
  std::vector<Endpoint> endpoints;
  for (const std::string& port : rendezvous.exchange(
           "gloo_port", std::to_string(listener.local().port))) {
    endpoints.push_back({ranks[endpoints.size()].own, std::atoi(port.c_str())});
  }
  const auto limit =
      std::min(rendezvous.deadline(), Rendezvous::Clock::now() + kPatience);
  std::string failure;
  const std::vector<Attempt> attempts =
      connect_all(endpoints, endpoints.size(), limit);
  for (size_t rank = 0; rank < attempts.size() && failure.empty(); ++rank) {
    if (!attempts[rank].failure.empty()) {
      failure = "rank " + std::to_string(rank_info.rank) + " (" + own.host +
          ") cannot reach rank " + std::to_string(rank) + " (" +
          ranks[rank].host + ") at " + to_text(attempts[rank].to) + ": " +
          attempts[rank].failure;
    }
  }
  for (const std::string& one : rendezvous.exchange("gloo_failure", failure)) {
    if (!one.empty()) {
      throw Error(
          ExitCode::unavailable,
          one,
          "Gloo between " + list_of(ranks),
          "a firewall that leaves only some ports open (22, 29500)? Gloo needs "
          "all TCP ports above 1023 between the hosts; or another interface: "
          "GLOO_SOCKET_IFNAME");
    }
  }
}

} // namespace

std::string agree_on_address(
    const RankInfo& rank_info,
    Rendezvous& rendezvous) {
  RankAddress self{
      host_name(), rendezvous.own_address(), rendezvous.master_address(), ""};
  std::string chosen;
  std::optional<Error> error; // told to all before it is thrown
  try {
    chosen = chosen_address();
    self.own = chosen.empty() ? self.own : chosen;
  } catch (const Error& caught) {
    error = caught;
    self.failure = caught.what();
  }
  std::vector<RankAddress> ranks;
  for (const std::string& text :
       rendezvous.exchange("address", to_json(self))) {
    ranks.push_back(from_json(text));
  }
  if (error) {
    throw *error;
  }
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!ranks[rank].failure.empty()) {
      throw Error(
          ExitCode::config,
          "rank " + std::to_string(rank) + " (" + ranks[rank].host +
              "): " + ranks[rank].failure,
          "",
          "its own last lines say what there is");
    }
  }
  std::string own = self.own;
  if (chosen.empty() && !is_outside(own)) {
    own = address_of_master_host(ranks, rank_info.rank);
  }
  size_t rank = 0;
  for (const std::string& address : rendezvous.exchange("gloo_address", own)) {
    ranks[rank++].own = address;
  }
  require_connections(rank_info, ranks, rendezvous);
  if (rank_info.rank == 0 && !rank_info.is_one_host()) {
    base::log_info("ranks talk over Gloo at " + list_of(ranks));
  }
  return own;
}

} // namespace deepspeed::comm
