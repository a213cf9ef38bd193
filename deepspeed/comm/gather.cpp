// Small values of all ranks on all ranks.
#include "deepspeed/comm/gather.h"

#include <ATen/ops/from_blob.h>

#include "deepspeed/comm/transport.h"

namespace deepspeed::comm {

void gather_bytes(ProcessGroup& ranks, std::span<std::byte> all) {
  if (ranks.size() == 1) {
    return; // without operators of libtorch, which are slow when not cached
  }
  const auto size = static_cast<int64_t>(all.size());
  ranks
      .all_gather(
          at::from_blob(all.data(), {size}, at::kByte),
          even_bounds(size, ranks.size()))
      ->wait();
}

} // namespace deepspeed::comm
