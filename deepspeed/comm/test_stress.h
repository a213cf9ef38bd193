// Many collectives in a row, which every transport must get right.
#pragma once

#include <random>
#include <thread>

#include "deepspeed/comm/test_collectives.h"

namespace deepspeed::comm {

// A mix of collectives, sizes and delays that is the same on all ranks but for
// the delays; a lost wake-up or a buffer used too early shows here.
inline void stress(
    ProcessGroup& group,
    const RankInfo& info,
    at::Device device = at::kCPU) {
  std::mt19937 common(1);
  std::mt19937 own(info.rank + 2);
  const at::Tensor allocated = group.allocate(50'000, at::kFloat);
  for (int i = 0; i < 200; ++i) {
    const auto numel = static_cast<int64_t>(common() % 50'000 + 1);
    const bool shared = common() % 2 == 0 && device.is_cpu();
    at::Tensor data = shared ? allocated.slice(0, 0, numel)
                             : at::empty({numel}, at::device(device));
    const auto kind = common() % 3;
    data.fill_(info.rank + i);
    if (own() % 16 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(own() % 2000));
    }
    const int size = info.world_size;
    const float sum = static_cast<float>(size * i + size * (size - 1) / 2);
    if (kind == 0) {
      group.all_reduce(data, ReduceOp::sum)->wait();
      ASSERT_TRUE(at::equal(data, at::full_like(data, sum))) << i;
    } else if (kind == 1) {
      group.broadcast(data, i % size)->wait();
      ASSERT_TRUE(at::equal(data, at::full_like(data, i % size + i))) << i;
    } else {
      const std::vector<int64_t> bounds = uneven_bounds(numel, size, i);
      group.reduce_scatter(data, bounds);
      group.all_gather(data, bounds)->wait();
      const at::Tensor range = data.slice(0, bounds.front(), bounds.back());
      ASSERT_TRUE(at::equal(range, at::full_like(range, sum))) << i;
    }
  }
}

} // namespace deepspeed::comm
