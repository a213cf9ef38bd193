// Rows that come after the dense gradient are summed as if they were part of
// it, in every stage, whatever the ranks have and wherever sums are made.
#include "deepspeed/zero/gradient_reducer.h"

#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/zero/sharded_optimizer.h"

namespace deepspeed::zero {
namespace {

constexpr int64_t kRows = 7;
constexpr int64_t kColumns = 5;
constexpr int64_t kOther = 11;

struct Case {
  int stage = 0;
  int ranks = 2;
  at::ScalarType wire = at::kFloat;
  bool late = true; // else the rows are written into the dense gradient
  bool all_ranks = true; // else rank 0 has no dense gradient and no rows
  bool on_device = false; // sums where backward writes, shards elsewhere
};

at::Tensor ramp(int64_t rows, int64_t columns, double scale) {
  return (at::arange(rows * columns, at::kFloat) * scale).view({rows, columns});
}

// One backward pass of one rank; the gradient that the shards hold, together.
at::Tensor reduced(const Case& plan, const comm::RankInfo& info) {
  const auto ranks = comm::make_process_group(info);
  Placement placement;
  placement.stage = plan.stage;
  placement.whole_gradients = plan.stage < 2;
  placement.exchange_on_device = plan.on_device;
  placement.ranks = ranks.get();
  std::vector<std::unique_ptr<FlatGroup>> groups;
  groups.push_back(std::make_unique<FlatGroup>(
      flat::NamedParameters{
          {"table", at::zeros({kRows, kColumns}).requires_grad_()},
          {"other", at::zeros({kOther}).requires_grad_()}},
      placement));
  flat::FlatEntry& table = groups[0]->entries()[0];
  flat::FlatEntry& other = groups[0]->entries()[1];
  table.slot.traits.rows_come_last = plan.late;
  GradientReducer reducer(groups, *ranks, {.wire_dtype = plan.wire});
  reducer.begin_step();
  reducer.begin_backward(/*last=*/true);
  other.slot.take().grad.fill_(info.rank + 1.0f);
  if (plan.all_ranks || info.rank != 0) {
    const at::Tensor dense = table.slot.take().grad;
    dense.copy_(ramp(kRows, kColumns, info.rank + 1.0));
    table.slot.dense_is_complete();
    const std::vector<int64_t> rows = {1, 2 + info.rank};
    const at::Tensor values = ramp(2, kColumns, 0.5 * (info.rank + 1.0));
    flat::RowGradients* late = table.slot.late_rows();
    EXPECT_EQ(late != nullptr, plan.late);
    if (late != nullptr) {
      *late = {rows, values};
      // The module has run twice before one backward pass: both kinds again.
      EXPECT_EQ(table.slot.late_rows(), nullptr);
      for (const bool second : {false, true}) {
        const flat::GradientTarget again = table.slot.take();
        EXPECT_EQ(again.add, second);
        second ? again.grad.add_(0.25) : again.grad.fill_(0.5);
        table.slot.dense_is_complete();
      }
    } else {
      at::Tensor(dense).index_add_(0, at::tensor(rows, at::kLong), values);
    }
  }
  reducer.end_backward();
  reducer.wait();
  EXPECT_EQ(
      reducer.has_more(), plan.late && (plan.all_ranks || info.rank != 0));
  if (plan.late) {
    reducer.add_again();
  }
  at::Tensor whole = at::zeros({groups[0]->bounds().back()});
  const checkpoint::Shard& own = groups[0]->shard();
  whole.narrow(0, own.offset, own.size).copy_(groups[0]->gradients().shard());
  if (plan.stage > 0) {
    ranks->all_gather(whole, groups[0]->bounds())->wait();
  }
  return whole.narrow(0, 0, kRows * kColumns + kOther).clone();
}

at::Tensor expected(const Case& plan) {
  at::Tensor table = at::zeros({kRows, kColumns});
  double other = 0;
  for (int rank = 0; rank < plan.ranks; ++rank) {
    other += rank + 1;
    if (plan.all_ranks || rank != 0) {
      table.add_(ramp(kRows, kColumns, rank + 1.0));
      const std::vector<int64_t> rows = {1, 2 + rank};
      table.index_add_(
          0,
          at::tensor(rows, at::kLong),
          ramp(2, kColumns, 0.5 * (rank + 1.0)));
      if (plan.late) {
        table.add_(0.75);
      }
    }
  }
  return at::cat({table.flatten(), at::full({kOther}, other)});
}

void check(const Case& plan) {
  comm::Ranks ranks(plan.ranks, [&](const comm::RankInfo& info) {
    EXPECT_TRUE(at::equal(reduced(plan, info), expected(plan)))
        << "stage " << plan.stage;
  });
  ranks.expect_success();
}

// Small whole numbers and halves: exact in every order and in bfloat16.
TEST(LateRows, AreAddedInEveryStage) {
  for (const int stage : {0, 1, 2}) {
    for (const int ranks : {2, 3}) {
      check({.stage = stage, .ranks = ranks});
      check({.stage = stage, .ranks = ranks, .late = false});
      check({.stage = stage, .ranks = ranks, .on_device = true});
    }
  }
}

TEST(LateRows, TravelInTheWireDtype) {
  check({.stage = 1, .wire = at::kBFloat16});
  check({.stage = 1, .wire = at::kBFloat16, .on_device = true});
}

TEST(LateRows, ARankMayHaveNone) {
  for (const int stage : {0, 1, 2}) {
    check({.stage = stage, .all_ranks = false});
  }
}

// As between GPUs, with the CPU in their place: a rank changes its own shard in
// host memory, and all ranks get it into their modules.
TEST(ExchangeOnDevice, WeightsOfAllShardsReachTheModule) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int stage : {0, 1, 2}) {
      comm::Ranks processes(3, [&](const comm::RankInfo& info) {
        const auto ranks = comm::make_process_group(info);
        Placement placement{.stage = stage, .compute_dtype = dtype};
        placement.whole_gradients = stage < 2;
        placement.exchange_on_device = true;
        placement.ranks = ranks.get();
        at::Tensor weights = ramp(kRows, kColumns, 1.0).requires_grad_();
        std::vector<std::unique_ptr<FlatGroup>> groups;
        groups.push_back(std::make_unique<FlatGroup>(
            flat::NamedParameters{{"weights", weights}}, placement));
        EXPECT_TRUE(
            at::equal(weights.to(at::kFloat), ramp(kRows, kColumns, 1.0)));
        groups[0]->master().add_(8);
        groups[0]->refresh_own();
        EXPECT_TRUE(
            at::equal(weights.to(at::kFloat), ramp(kRows, kColumns, 1.0)))
            << "the shard is no part of the module's weights";
        ShardedOptimizer optimizer(groups, {}, *ranks, /*gather_size=*/4);
        optimizer.gather_weights();
        EXPECT_TRUE(
            at::equal(weights.to(at::kFloat), ramp(kRows, kColumns, 1.0) + 8))
            << c10::toString(dtype) << " stage " << stage;
      });
      processes.expect_success();
    }
  }
}

// The first bucket holds a parameter that never gets a gradient.
TEST(UnusedParameters, HoldNothingUp) {
  for (const int stage : {0, 2}) {
    comm::Ranks processes(2, [&](const comm::RankInfo& info) {
      const auto ranks = comm::make_process_group(info);
      Placement placement;
      placement.stage = stage;
      placement.whole_gradients = stage < 2;
      placement.ranks = ranks.get();
      std::vector<std::unique_ptr<FlatGroup>> groups;
      at::Tensor used = at::zeros({8}).requires_grad_();
      groups.push_back(std::make_unique<FlatGroup>(
          flat::NamedParameters{
              {"used", used}, {"unused", at::zeros({8}).requires_grad_()}},
          placement));
      groups[0]->entries()[1].slot.traits.is_unused = true;
      GradientReducer reducer(groups, *ranks, {.bucket_size = 1});
      reducer.begin_step();
      reducer.begin_backward(/*last=*/true);
      used.sum().backward();
      EXPECT_EQ(reducer.unused(), std::vector<std::string>{"unused"})
          << "launched before the end of backward";
      reducer.end_backward();
      reducer.wait();
      const double sum = groups[0]->gradients().shard().sum().item<double>();
      EXPECT_EQ(sum, stage == 0 || info.rank == 0 ? 16 : 0);
    });
    processes.expect_success();
  }
}

} // namespace
} // namespace deepspeed::zero
