// The prefetcher keeps the order, stops at once, and carries failures.
#include "deepspeed/text/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

namespace deepspeed::text {
namespace {

PackedBatch numbered(uint64_t index) {
  PackedBatch batch;
  batch.visits = {index};
  return batch;
}

TEST(Prefetcher, GivesTheBatchesInOrder) {
  Prefetcher batches(numbered, 7, 3);
  for (uint64_t i = 7; i < 500; ++i) {
    ASSERT_EQ(batches.next().visits[0], i);
  }
}

TEST(Prefetcher, MakesAFewBatchesAheadAndNoMore) {
  std::atomic<int> made{0};
  Prefetcher batches(
      [&](uint64_t index) {
        ++made;
        return numbered(index);
      },
      0,
      4);
  while (made < 4) {
    std::this_thread::yield();
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(made, 4);
  batches.next();
  batches.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(made, 4);
  batches.next();
  while (made < 7) {
    std::this_thread::yield();
  }
}

TEST(Prefetcher, CarriesAFailureAfterTheBatchesBefore) {
  Prefetcher batches(
      [](uint64_t index) {
        if (index == 2) {
          throw std::runtime_error("broken");
        }
        return numbered(index);
      },
      0,
      4);
  EXPECT_EQ(batches.next().visits[0], 0u);
  EXPECT_EQ(batches.next().visits[0], 1u);
  EXPECT_THROW(batches.next(), std::runtime_error);
  EXPECT_THROW(batches.next(), std::runtime_error); // and stays broken
}

TEST(Prefetcher, MeasuresTheTimeItIsWaitedFor) {
  Prefetcher batches(
      [](uint64_t index) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return numbered(index);
      },
      0,
      1);
  batches.next();
  EXPECT_GT(batches.waited_seconds(), 0.005);
  const double before = batches.waited_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  batches.next(); // was ready
  EXPECT_EQ(batches.waited_seconds(), before);
}

TEST(Prefetcher, StopsWithAFullQueueAndWithoutAConsumer) {
  for (int i = 0; i < 200; ++i) {
    const Prefetcher batches(numbered, 0, 1 + i % 3);
  }
  EXPECT_THROW(Prefetcher(numbered, 0, 0), std::invalid_argument);
}

} // namespace
} // namespace deepspeed::text
