// Small values of all ranks on all ranks.
#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {

// `all` holds size() ranges alike in rank order; each rank has filled its own.
void gather_bytes(ProcessGroup& ranks, std::span<std::byte> all);

// `own` of every rank, in rank order: a number, or a struct of numbers. A
// collective.
template <typename T>
std::vector<T> gather(ProcessGroup& ranks, const T& own) {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_same_v<T, bool>);
  std::vector<T> all(ranks.size());
  all[ranks.rank()] = own;
  gather_bytes(ranks, std::as_writable_bytes(std::span(all)));
  return all;
}

} // namespace deepspeed::comm
