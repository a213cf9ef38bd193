// What every transport must do, bit for bit: collectives on data of all kinds
// against the definition.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "deepspeed/comm/test_ranks.h"

namespace deepspeed::comm {

inline const std::vector<at::ScalarType> kAllDtypes = {
    at::kFloat,
    at::kBFloat16,
    at::kHalf,
    at::kDouble,
    at::kLong,
    at::kInt,
    at::kByte};

// The same on all ranks that ask for it. Magnitudes far apart, so that another
// order of the additions gives other bits.
inline at::Tensor values(
    int64_t numel,
    at::ScalarType dtype,
    int rank,
    int seed) {
  std::mt19937 generator(static_cast<uint32_t>(seed * 64 + rank));
  at::Tensor wide = at::empty({numel}, at::kDouble);
  auto* data = wide.data_ptr<double>();
  const double scale = rank % 2 == 0 ? 900.0 : 0.7;
  for (int64_t i = 0; i < numel; ++i) {
    data[i] = scale * (static_cast<double>(generator()) / 2147483648.0 - 1.0);
  }
  return dtype == at::kByte ? wide.abs().to(dtype) : wide.to(dtype);
}

// The definition: in float (or wider) in rank order, rounded once.
inline at::Tensor sum_of_ranks(
    int64_t numel,
    at::ScalarType dtype,
    int size,
    int seed) {
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  const at::ScalarType wide = narrow ? at::kFloat : dtype;
  at::Tensor total = values(numel, dtype, 0, seed).to(wide);
  for (int rank = 1; rank < size; ++rank) {
    total = total + values(numel, dtype, rank, seed).to(wide);
  }
  return total.to(dtype);
}

inline bool same_bits(const at::Tensor& result, const at::Tensor& b) {
  const at::Tensor a = result.cpu();
  return a.scalar_type() == b.scalar_type() && a.numel() == b.numel() &&
      std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

// Where the data of a rank lie.
enum class Memory { ordinary, allocated, mixed };

// The data of a rank for one collective after the other.
class Data {
 public:
  Data(
      ProcessGroup& group,
      Memory memory,
      at::ScalarType dtype,
      at::Device device)
      : dtype_(dtype), device_(device) {
    if (memory != Memory::ordinary) {
      allocated_ = group.allocate(kMost + kStart, dtype);
      EXPECT_EQ(allocated_.ne(0).sum().item<int64_t>(), 0);
    }
    if (memory == Memory::mixed && group.rank() == 0) {
      allocated_ = at::Tensor();
    }
  }
  // A copy of `content`; allocated, with an odd start, as a bucket has.
  at::Tensor holding(const at::Tensor& content) const {
    if (!allocated_.defined()) {
      return content.to(device_, /*non_blocking=*/false, /*copy=*/true);
    }
    return allocated_.slice(0, kStart, kStart + content.numel()).copy_(content);
  }
  at::ScalarType dtype() const {
    return dtype_;
  }
  // More than one chunk of the staging area for every rank.
  static constexpr int64_t kMost = 700'001;

 private:
  static constexpr int64_t kStart = 3;
  at::ScalarType dtype_;
  at::Device device_; // of ordinary memory
  at::Tensor allocated_;
};

// Uneven ranges with gaps before, between and after; some empty.
inline std::vector<int64_t> uneven_bounds(int64_t numel, int size, int seed) {
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::vector<int64_t> bounds(size + 1);
  for (int64_t& bound : bounds) {
    bound = static_cast<int64_t>(generator() % (numel + 1));
  }
  std::sort(bounds.begin(), bounds.end());
  return bounds;
}

inline void check_sums(ProcessGroup& group, int64_t numel, const Data& data) {
  const int seed = static_cast<int>(numel % 1000) + 1;
  const at::Tensor own = values(numel, data.dtype(), group.rank(), seed);
  const at::Tensor sum = sum_of_ranks(numel, data.dtype(), group.size(), seed);
  at::Tensor result = data.holding(own);
  group.all_reduce(result, ReduceOp::sum)->wait();
  EXPECT_TRUE(same_bits(result, sum)) << "all_reduce";

  result = data.holding(own);
  const std::vector<int64_t> bounds = uneven_bounds(numel, group.size(), seed);
  group.reduce_scatter(result, bounds)->wait();
  at::Tensor expected = own.clone();
  const int64_t begin = bounds[group.rank()];
  const int64_t end = bounds[group.rank() + 1];
  expected.slice(0, begin, end).copy_(sum.slice(0, begin, end));
  EXPECT_TRUE(same_bits(result, expected)) << "reduce_scatter";
}

inline void check_copies(ProcessGroup& group, int64_t numel, const Data& data) {
  const at::ScalarType dtype = data.dtype();
  const at::Tensor own = values(numel, dtype, group.rank(), 5);
  at::Tensor result = data.holding(own);
  const std::vector<int64_t> bounds = uneven_bounds(numel, group.size(), 7);
  at::Tensor expected = own.clone();
  for (int rank = 0; rank < group.size(); ++rank) {
    expected.slice(0, bounds[rank], bounds[rank + 1])
        .copy_(values(numel, dtype, rank, 5)
                   .slice(0, bounds[rank], bounds[rank + 1]));
  }
  group.all_gather(result, bounds)->wait();
  EXPECT_TRUE(same_bits(result, expected)) << "all_gather";

  const int root = group.size() - 1;
  result = data.holding(own);
  group.broadcast(result, root)->wait();
  EXPECT_TRUE(same_bits(result, values(numel, dtype, root, 5))) << "broadcast";
}

inline void check_collectives(
    ProcessGroup& group,
    Memory memory,
    const std::vector<at::ScalarType>& dtypes,
    at::Device device = at::kCPU) {
  for (const at::ScalarType dtype : dtypes) {
    const Data data(group, memory, dtype, device);
    for (const int64_t numel :
         {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{1009}, Data::kMost}) {
      if (numel == Data::kMost && dtype != at::kFloat) {
        continue;
      }
      SCOPED_TRACE(
          std::string(c10::toString(dtype)) + " x " + std::to_string(numel));
      if (dtype != at::kByte) {
        check_sums(group, numel, data);
      }
      check_copies(group, numel, data);
    }
  }
}

// NaN stays.
inline void check_maximum(ProcessGroup& group, at::Device device = at::kCPU) {
  at::Tensor data = at::empty({2});
  data[0] = static_cast<float>(group.rank()) - 10.0f;
  data[1] = group.rank() == 0 ? NAN : 1.0f;
  data = data.to(device);
  group.all_reduce(data, ReduceOp::max)->wait();
  EXPECT_EQ(data[0].item<float>(), static_cast<float>(group.size()) - 11);
  EXPECT_TRUE(std::isnan(data[1].item<float>()));
}

} // namespace deepspeed::comm
