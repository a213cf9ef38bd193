// What a span costs, without a profile and with one.
#include <benchmark/benchmark.h>

#include "deepspeed/base/trace.h"

namespace deepspeed::base {
namespace {

void span(benchmark::State& state) {
  for (auto _ : state) {
    const Span one({"forward", "layer", 3});
    benchmark::ClobberMemory();
  }
}
BENCHMARK(span)->Name("span/off");

void recorded_span(benchmark::State& state) {
  start_trace(size_t{1} << 22);
  span(state);
  const Trace trace = stop_trace();
  state.counters["lost"] =
      trace.threads.empty() ? 0 : static_cast<double>(trace.threads[0].lost);
}
BENCHMARK(recorded_span)->Name("span/on")->Iterations(1 << 21);

} // namespace
} // namespace deepspeed::base

BENCHMARK_MAIN();
