// Measured bounds: copies of memory, multiply-adds in registers.
#include "benchmarks/bounds.h"

#include "deepspeed/kernels/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/bounds.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace deepspeed::benchmarks::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Two units with a latency of 4 or 5 cycles: 10 sums keep both busy, and with
// two constants 12 of them fit the 16 registers of AVX2.
constexpr int kSums = 12;
constexpr int64_t kRounds = 500'000;

// Returns the number of floating-point operations.
double multiply_add(float* out) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f);
  const auto term = hn::Set(d, 0.001f);
  hn::Vec<decltype(d)> sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) {
    sums[i] = hn::Set(d, static_cast<float>(i));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      sums[i] = hn::MulAdd(sums[i], factor, term);
    }
  }
  auto sum = hn::Zero(d);
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) {
    sum = hn::Add(sum, sums[i]);
  }
  *out = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2.0 * kSums * kRounds * hn::Lanes(d);
}

} // namespace deepspeed::benchmarks::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

namespace deepspeed::benchmarks {
namespace {

HWY_EXPORT(multiply_add);

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

double median(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

} // namespace

void on_threads(int threads, const std::function<void(int)>& task) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back(task, i);
  }
  task(0);
  for (std::thread& other : others) {
    other.join();
  }
}

Task copy_task(int64_t bytes, int threads) {
  const int64_t part = bytes / 2 / threads;
  // Filled, so that every page has memory of its own.
  const auto from = std::make_shared<std::vector<char>>(part * threads, 1);
  const auto to = std::make_shared<std::vector<char>>(part * threads, 2);
  return {
      [=] {
        on_threads(threads, [&](int i) {
          std::memcpy(to->data() + i * part, from->data() + i * part, part);
          benchmark::ClobberMemory();
        });
      },
      2.0 * static_cast<double>(part) * threads};
}

Task multiply_add_task() {
  const auto once = [] {
    float result = 0;
    const double operations = DS_DISPATCH(multiply_add)(&result);
    benchmark::DoNotOptimize(result);
    return operations;
  };
  return {once, once(), true};
}

[[gnu::noinline]] void ds_counted(const std::function<void()>& run) {
  run();
  asm volatile(""); // no tail call: the end of this function ends the count
}

void measure(
    benchmark::State& state,
    const Task& task,
    const Bound& make_bound) {
  const Task bound = make_bound();
  std::vector<double> times;
  std::vector<double> bound_times;
  task.run(); // memory that a first call takes is not counted
  bound.run();
  for (auto _ : state) {
    times.push_back(seconds_of(task.run));
    double spent = 0;
    do {
      bound_times.push_back(seconds_of(bound.run));
      spent += bound_times.back();
    } while (bound.is_short && spent < times.back() / 2);
    state.SetIterationTime(times.back());
  }
  if (times.empty()) {
    return; // of a benchmark that was skipped
  }
  const double rate = task.work / median(times);
  const double best = bound.work / median(bound_times);
  state.counters["rate"] = rate * 1e-9;
  state.counters["bound"] = best * 1e-9;
  state.counters["share"] = rate / best;
}

} // namespace deepspeed::benchmarks
#endif // HWY_ONCE
