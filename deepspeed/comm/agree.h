// Errors that one rank meets and all ranks must act on.
#pragma once

#include <functional>

#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {

// Runs `part` on every rank. When it throws on one, all ranks throw a
// base::Error: each its own if it has one, the others that of the first rank
// with one, which they name. Other exceptions count as Error(internal).
void agree(ProcessGroup& ranks, const std::function<void()>& part);

// The same with a part that rank 0 alone has.
void agree_at_root(ProcessGroup& ranks, const std::function<void()>& part);

} // namespace deepspeed::comm
