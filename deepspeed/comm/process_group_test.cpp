// Collectives of real processes, bit for bit against sums in rank order.
#include "deepspeed/comm/process_group.h"

#include <cmath>

#include "deepspeed/comm/gather.h"
#include "deepspeed/comm/test_stress.h"

namespace deepspeed::comm {
namespace {

using testing::HasSubstr;

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
    check_collectives(*group, Memory::ordinary, kAllDtypes);
    if (GetParam().transport != "gloo") {
      check_collectives(*group, Memory::allocated, {at::kFloat, at::kBFloat16});
      check_collectives(*group, Memory::mixed, {at::kFloat});
    }
  });
  ranks.expect_success();
}

TEST_P(Collectives, TakeTensorsOfAnyShape) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    const at::Tensor scalar = at::full({}, info.rank + 1, at::kInt);
    group->all_reduce(scalar, ReduceOp::sum)->wait();
    const int size = group->size();
    EXPECT_EQ(scalar.item<int>(), size * (size + 1) / 2);
    const at::Tensor matrix = at::full({2, 3}, info.rank);
    group->broadcast(matrix, size - 1)->wait();
    EXPECT_TRUE(at::equal(matrix, at::full({2, 3}, size - 1)));
    EXPECT_THROW(
        group->all_gather(matrix, even_bounds(6, size)), std::invalid_argument);
  });
  ranks.expect_success();
}

TEST_P(Collectives, MaximumKeepsNan) {
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    check_maximum(*group);
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

TEST_P(Collectives, NumbersOfAllRanks) {
  struct Part {
    double loss;
    int64_t tokens;
    bool finite;
  };
  Ranks ranks(GetParam().size, [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of(GetParam().transport));
    const std::vector<Part> all = gather(
        *group, Part{0.1 * info.rank, INT64_MAX - info.rank, info.rank != 1});
    ASSERT_EQ(all.size(), static_cast<size_t>(info.world_size));
    for (int rank = 0; rank < info.world_size; ++rank) {
      EXPECT_EQ(all[rank].loss, 0.1 * rank);
      EXPECT_EQ(all[rank].tokens, INT64_MAX - rank);
      EXPECT_EQ(all[rank].finite, rank != 1);
    }
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
  refused([&] { group.all_gather(at::zeros({2, 2}), bounds); });
  refused([&] {
    group.all_reduce(at::zeros({8}).slice(0, 0, 8, 2), ReduceOp::sum);
  });
  refused([&] { group.all_reduce(at::zeros({4}, at::kBool), ReduceOp::sum); });
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
