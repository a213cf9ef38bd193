// What a rank is said to need.
#include "deepspeed/pretrain/memory_plan.h"

#include <gtest/gtest.h>

#include "deepspeed/machine/system_info.h"
#include "deepspeed/pretrain/test_data.h"

namespace deepspeed::pretrain {
namespace {

class PlannedMemory : public testing::Test {
 protected:
  MemoryPlan plan(int64_t ranks = 1, bool whole_gradients = true) const {
    const Data opened = data_.open(ranks);
    MemoryPlanInputs inputs{data_.settings, model_, opened};
    inputs.ranks = ranks;
    inputs.whole_gradients = whole_gradients;
    return plan_memory(inputs);
  }

  TestData data_;
  bert::RobertaConfig model_;
  double all_ = static_cast<double>(bert::parameter_count(model_));
};

TEST_F(PlannedMemory, IsWeightsGradientsAndMomentsInFp32) {
  const MemoryPlan fp32 = plan();
  EXPECT_EQ(fp32.parameters, 4 * all_);
  EXPECT_EQ(fp32.gradients, 4 * all_);
  EXPECT_EQ(fp32.optimizer, 8 * all_);
  EXPECT_GT(fp32.program, 1e6);
  EXPECT_EQ(fp32.total(), fp32.program + 16 * all_ + fp32.activations);
}

TEST_F(PlannedMemory, HasMasterWeightsBesideHalfPrecision) {
  const MemoryPlan fp32 = plan();
  data_.settings.machine.dtype = "bf16";
  const MemoryPlan bf16 = plan();
  EXPECT_EQ(bf16.parameters, 2 * all_);
  EXPECT_EQ(bf16.gradients, 4 * all_);
  EXPECT_EQ(bf16.optimizer, 12 * all_);
  EXPECT_LT(bf16.activations, fp32.activations);
  EXPECT_GT(bf16.activations, fp32.activations / 2);
}

TEST_F(PlannedMemory, IsDividedOverRanksWithZero) {
  data_.settings.engine.enabled = true;
  data_.settings.engine.zero_stage = 0;
  EXPECT_EQ(plan(4).optimizer, 8 * all_);
  data_.settings.engine.zero_stage = 2;
  EXPECT_EQ(plan(4).optimizer, 8 * all_ / 4);
  EXPECT_EQ(plan(4).gradients, 4 * all_);
  EXPECT_EQ(plan(4, false).gradients, 4 * all_ + all_); // its own shard, too
}

TEST_F(PlannedMemory, GrowsWithTheLargestBatch) {
  data_.settings.optimizer.batch_size = 1; // 66 tokens in the longest line
  const double one = plan().activations;
  data_.settings.optimizer.batch_size = TestData::kLines;
  const double many = plan().activations;
  // 33 times the tokens; the last columns of the head are for every batch.
  EXPECT_GT(many / one, 10);
  EXPECT_LT(many / one, 33);
}

TEST(MemoryPlan, ReadsInMegabytes) {
  EXPECT_EQ(
      memory_plan_text({1e6, 2e6, 3e6, 4e6, 5.4e6}),
      "parameters 2 MB, gradients 3 MB, optimizer 4 MB, activations at most 5 "
      "MB, program and data 1 MB, total 15 MB");
}

} // namespace
} // namespace deepspeed::pretrain
