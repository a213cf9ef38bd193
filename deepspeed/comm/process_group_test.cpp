// Collectives of real processes, bit for bit against sums in rank order.
#include "deepspeed/comm/process_group.h"

#include <ATen/ATen.h>

#include <cstring>
#include <numeric>
#include <random>

#include "deepspeed/comm/test_ranks.h"

namespace deepspeed::comm {
namespace {

using testing::HasSubstr;

// The same on all ranks that ask for it. Magnitudes far apart, so that another
// order of the additions gives other bits.
at::Tensor values(int64_t numel, at::ScalarType dtype, int rank, int seed) {
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
at::Tensor sum_of_ranks(
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

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.numel() == b.numel() &&
      std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

// Where the data of a rank lie.
enum class Memory { ordinary, allocated, mixed };

// The data of a rank for one collective after the other.
class Data {
 public:
  Data(ProcessGroup& group, Memory memory, at::ScalarType dtype)
      : dtype_(dtype) {
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
      return content.clone();
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
  at::Tensor allocated_;
};

// Uneven ranges with gaps before, between and after; some empty.
std::vector<int64_t> uneven_bounds(int64_t numel, int size, int seed) {
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::vector<int64_t> bounds(size + 1);
  for (int64_t& bound : bounds) {
    bound = static_cast<int64_t>(generator() % (numel + 1));
  }
  std::sort(bounds.begin(), bounds.end());
  return bounds;
}

void check_sums(ProcessGroup& group, int64_t numel, const Data& data) {
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

void check_copies(ProcessGroup& group, int64_t numel, const Data& data) {
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

void check_collectives(
    ProcessGroup& group,
    Memory memory,
    const std::vector<at::ScalarType>& dtypes) {
  for (const at::ScalarType dtype : dtypes) {
    const Data data(group, memory, dtype);
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

struct Case {
  int size;
  std::string transport;
};

class Collectives : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    All,
    Collectives,
    testing::Values(
        Case{1, ""},
        Case{2, "shm"},
        Case{3, "shm"},
        Case{4, "shm"},
        Case{2, "gloo"},
        Case{3, "gloo"}),
    [](const auto& info) {
      const Case& one = info.param;
      return (one.transport.empty() ? "single" : one.transport) +
          std::to_string(one.size);
    });

TEST_P(Collectives, MatchTheDefinitionBitForBit) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    EXPECT_EQ(group->rank(), info.rank);
    EXPECT_EQ(group->size(), info.world_size);
    EXPECT_EQ(
        group->name(),
        info.world_size == 1                ? "single"
            : GetParam().transport == "shm" ? "shared memory"
                                            : "gloo");
    check_collectives(
        *group,
        Memory::ordinary,
        {at::kFloat,
         at::kBFloat16,
         at::kHalf,
         at::kDouble,
         at::kLong,
         at::kByte});
    if (GetParam().transport != "gloo") {
      check_collectives(*group, Memory::allocated, {at::kFloat, at::kBFloat16});
      check_collectives(*group, Memory::mixed, {at::kFloat});
    }
  });
  ranks.expect_success();
}

TEST_P(Collectives, MaximumKeepsNan) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    at::Tensor data = at::empty({2});
    data[0] = static_cast<float>(info.rank) - 10.0f;
    data[1] = info.rank == 0 ? NAN : 1.0f;
    group->all_reduce(data, ReduceOp::max)->wait();
    EXPECT_EQ(data[0].item<float>(), static_cast<float>(info.world_size) - 11);
    EXPECT_TRUE(std::isnan(data[1].item<float>()));
  });
  ranks.expect_success();
}

TEST_P(Collectives, RunInTheOrderOfTheCalls) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    at::Tensor data = at::ones({10'000});
    std::vector<std::shared_ptr<Work>> work;
    for (int i = 0; i < 10; ++i) { // each sums what the one before left
      work.push_back(group->all_reduce(data, ReduceOp::sum));
    }
    for (auto one = work.rbegin(); one != work.rend(); ++one) {
      (*one)->wait();
      EXPECT_TRUE((*one)->is_done());
    }
    const auto expected = static_cast<float>(std::pow(info.world_size, 10));
    EXPECT_TRUE(at::equal(data, at::full({10'000}, expected)));
  });
  ranks.expect_success();
}

TEST_P(Collectives, TextOfAnyLength) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    const std::string own(info.rank * 700'000, static_cast<char>(info.rank));
    const std::vector<std::string> all = group->all_gather_text(own);
    ASSERT_EQ(all.size(), static_cast<size_t>(info.world_size));
    for (int rank = 0; rank < info.world_size; ++rank) {
      EXPECT_EQ(
          all[rank], std::string(rank * 700'000, static_cast<char>(rank)));
    }
    const int root = info.world_size - 1;
    EXPECT_EQ(group->broadcast_text(own, root), all[root]);
    EXPECT_EQ(group->broadcast_text("", 0), "");
  });
  ranks.expect_success();
}

TEST_P(Collectives, RequireEqualNamesWhatDiffers) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    group->require_equal("seed", "42");
    const std::string last = std::to_string(info.world_size - 1);
    const bool is_last = info.rank == info.world_size - 1;
    const std::string error = error_of(
        [&] { group->require_equal("dtype", is_last ? "bf16" : "fp32"); });
    if (info.world_size > 1) {
      EXPECT_EQ(
          error,
          "78 ranks differ in dtype: rank 0 has 'fp32', rank " + last +
              " has 'bf16'");
    }
    group->require_equal("seed", "42"); // the group goes on
  });
  ranks.expect_success();
}

// A mix of collectives, sizes and delays that is the same on all ranks but for
// the delays; a lost wake-up or a buffer used too early shows here.
void stress(ProcessGroup& group, const RankInfo& info) {
  std::mt19937 common(1);
  std::mt19937 own(info.rank + 2);
  const at::Tensor allocated = group.allocate(50'000, at::kFloat);
  for (int i = 0; i < 200; ++i) {
    const auto numel = static_cast<int64_t>(common() % 50'000 + 1);
    const bool shared = common() % 2 == 0;
    at::Tensor data =
        shared ? allocated.slice(0, 0, numel) : at::empty({numel}, at::kFloat);
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

TEST_P(Collectives, StayRightUnderStress) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    stress(*group, info);
  });
  ranks.expect_success();
}

TEST(ProcessGroup, AllocatedMemoryOutlivesTheGroup) {
  Ranks ranks(2, [](const RankInfo& info) {
    auto group = make_process_group(info, options_of("shm"));
    at::Tensor data = group->allocate(1000, at::kFloat);
    data.fill_(3.0f);
    group.reset();
    EXPECT_EQ(data.sum().item<float>(), 3000.0f);
  });
  ranks.expect_success();
}

TEST(ProcessGroup, BadArgumentsAreRefused) {
  const auto single = make_process_group(RankInfo{});
  ProcessGroup& group = *single;
  const at::Tensor good = at::zeros({4});
  const auto refused = [](auto&& call) {
    EXPECT_THROW(call(), std::invalid_argument);
  };
  const std::vector<int64_t> bounds{0, 4};
  refused([&] { group.all_reduce(at::zeros({2, 2}), ReduceOp::sum); });
  refused([&] {
    group.all_reduce(at::zeros({8}).slice(0, 0, 8, 2), ReduceOp::sum);
  });
  refused([&] { group.all_reduce(at::zeros({4}, at::kInt), ReduceOp::sum); });
  refused([&] { group.all_reduce(at::zeros({4}, at::kByte), ReduceOp::sum); });
  refused([&] { group.all_reduce(at::Tensor(), ReduceOp::sum); });
  for (const std::vector<int64_t>& bad :
       {std::vector<int64_t>{0, 5}, {-1, 4}, {3, 2}, {0, 1, 2}, {0}, {}}) {
    refused([&] { group.reduce_scatter(good, bad); });
    refused([&] { group.all_gather(good, bad); });
  }
  refused([&] { group.broadcast(good, 1); });
  refused([&] { group.broadcast_text("", -1); });
}

} // namespace
} // namespace deepspeed::comm
