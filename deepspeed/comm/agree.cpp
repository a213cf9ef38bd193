// Errors that one rank meets and all ranks must act on.
#include "deepspeed/comm/agree.h"

#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/comm/host_name.h"

namespace deepspeed::comm {
namespace {

std::string error_text(const base::Error& error) {
  return base::Json({static_cast<int>(error.code()),
                     error.what(),
                     error.where(),
                     error.hint(),
                     host_name()})
      .dump(-1, ' ', false, base::Json::error_handler_t::replace);
}

} // namespace

void agree(ProcessGroup& ranks, const std::function<void()>& part) {
  std::optional<base::Error> own;
  try {
    part();
  } catch (const base::Error& error) {
    own = error;
  } catch (const std::exception& error) {
    own = base::Error(base::ExitCode::internal, error.what(), "", "");
  }
  const std::vector<std::string> all =
      ranks.all_gather_text(own ? error_text(*own) : "");
  if (own) {
    throw *own;
  }
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!all[rank].empty()) {
      const auto error = base::Json::parse(all[rank]);
      const auto host = error[4].get<std::string>();
      throw base::Error(
          static_cast<base::ExitCode>(error[0].get<int>()),
          "rank " + std::to_string(rank) +
              (host == host_name() ? "" : " on " + host) + ": " +
              error[1].get<std::string>(),
          error[2].get<std::string>(),
          error[3].get<std::string>());
    }
  }
}

void agree_at_root(ProcessGroup& ranks, const std::function<void()>& part) {
  agree(
      ranks, ranks.rank() == 0 ? part : [] {});
}

} // namespace deepspeed::comm
