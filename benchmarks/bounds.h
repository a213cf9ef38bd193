// What this machine can do at best, measured in turn with what is compared.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace deepspeed::benchmarks {

// Something to time, and the work that a call of it does.
struct Task {
  std::function<void()> run;
  double work; // bytes, or floating-point operations
  // As a bound it is repeated for half the time of the task: one call of it
  // would often miss, or be, the moment in which another program has the core.
  // Not for what leaves its data in the cache.
  bool is_short = false;
};

// Work per second of memory: a memcpy that moves `bytes` in all, half of them
// read and half written, on `threads` threads at once.
Task copy_task(int64_t bytes, int threads = 1);

// Arithmetic per second: fp32 fused multiply-adds in registers, with the widest
// vectors of the active instruction set (DS_CPU_ISA), about a millisecond on
// one thread.
Task multiply_add_task();

// Calls task(i) for each i in [0, threads) on a thread of its own, and waits.
void on_threads(int threads, const std::function<void(int)>& task);

// Made when it is needed.
using Bound = std::function<Task()>;

// How a benchmark is measured: what it does, and the bound of that.
using Measure = std::function<void(const Task& task, const Bound& bound)>;

// Calls `run`. Never inlined, with a plain name, so that a profiler can be told
// to count instructions in here only.
extern "C" void ds_counted(const std::function<void()>& run);

// Times `task` and `bound` in turn for as long as Google Benchmark asks, which
// counts the time of `task` only (the benchmark needs UseManualTime()). Prints
// as counters, from the medians: "rate" of the task and of the bound in 1e9 of
// their unit per second, and "share" of the one in the other. Other programs on
// the machine hinder both alike.
void measure(benchmark::State& state, const Task& task, const Bound& bound);

} // namespace deepspeed::benchmarks
